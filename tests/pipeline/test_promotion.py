"""The commands that move the champion and tell of it, as a person gives them, on two nights that have closed."""

import json

import pytest
from workspaces import clone

pytestmark = pytest.mark.slow


@pytest.fixture
def two_nights(second, tmp_path, prefect_server):
    """A copy of the workspace in which two tiny nights have closed, version 2 champion."""
    workspace = clone(second.workspace, tmp_path / "workspace", prefect_server)
    champion = json.loads(workspace.run("history", "--json").out)["champion"]["version"]
    if champion != 2:  # the second night's student may have been refused: its gate is real
        workspace.run("promote", "2", "--reason", "for the tests", "--override-gate")
    return workspace


def champion(workspace, *arguments):
    return json.loads(workspace.run("history", "--json", *arguments).out)["champion"]


def test_the_champion_is_rolled_back_and_promoted_again(two_nights):
    back = two_nights.run("rollback", "--reason", "clicks [fell] [/now]", "--actor", "ada").out
    assert "rolled back: version 1, by ada: clicks [fell] [/now]" in back
    assert champion(two_nights)["version"] == 1
    assert "found champion version 1 and none before it" in two_nights.run("rollback", code=2).err
    forth = two_nights.run("promote", "student@2", "--reason", "a false alarm", "--override-gate", "--actor", "ada").out
    assert "previous     student version 1" in forth
    assert "champion already" in two_nights.run("promote", "2", "--reason", "again").out
    two_nights.run("promote", "1", "--reason", "word " * 60, "--actor", "ada")
    two_nights.run("rollback", "--actor", "ada")
    told = two_nights.run("history").out
    assert "promoted" in told
    assert "2026-03-03" in told
    assert "clicks [fell] [/now]" in told
    assert "student version 2 (small)" in told.splitlines()[-2]
    answer = json.loads(two_nights.run("recommend", "--user", "u000001", "-k", "3", "--json").out)
    assert answer["champion"].startswith("student version 2")


def test_two_versions_are_compared_on_the_same_targets(two_nights):
    found = json.loads(two_nights.run("compare", "1", "champion", "--json").out)
    assert [found[side]["version"] for side in ("first", "second")] == [1, 2]
    rows = {(one["protocol"], one["part"]): one for one in found["differences"]}
    evaluated = json.loads((two_nights.root / "metrics/evaluate/small.json").read_text())
    for protocol in ("leave_one_out", "time_window"):
        row = rows[protocol, "all"]
        assert row["second"] == pytest.approx(evaluated[protocol]["ndcg_at_10"])
        assert row["low"] <= row["second"] - row["first"] <= row["high"]
    assert {"short", "new_users", "tail"} & {part for _, part in rows}
    assert "gate.seed" in found["settings"]
    assert found["settings"]["gate.seed"] == [17, 18]
    again = two_nights.run("compare", "1", "2").out
    assert "gate.seed" in again
    same = json.loads(two_nights.run("compare", "2", "2", "--json").out)
    assert {(one["low"], one["high"]) for one in same["differences"]} == {(0.0, 0.0)}
    assert same["settings"] == {}


@pytest.mark.drill  # the drill of three nights, which CI runs, does it on servers
def test_in_approve_mode_a_night_closes_and_its_student_waits_for_a_person(two_nights):
    two_nights.set({"gate.mode": "approve"})
    night = two_nights.run("run", "--force").out
    assert "night/2026-03-03.2/closed" in two_nights.tags()
    assert champion(two_nights)["version"] == 2
    assert "awaits approval" in night
    standing = json.loads(two_nights.run("status", "--json").out)
    assert standing["awaiting"] == 3
    assert "stillhouse approve" in two_nights.run("status").out
    assert champion(two_nights)["version"] == 2
    assert "promoted: version 3, by ada: approved" in two_nights.run("approve", "--actor", "ada").out
    assert champion(two_nights)["version"] == 3
    assert "found none waiting" in two_nights.run("reject", "--reason", "too late", code=2).err


@pytest.mark.drill  # unit tests of promotion decide the same on a real ledger, without the nights
def test_a_student_that_waits_is_judged_again_where_the_champion_is_another_by_then(two_nights):
    two_nights.set({"gate.mode": "approve"})
    two_nights.run("run", "--force")
    two_nights.run("rollback", "--actor", "ada")
    assert "`stillhouse run --force` judges it again" in two_nights.run("approve", code=2).err
    two_nights.run("run", "--force")
    assert "night/2026-03-03.3/closed" in two_nights.tags()
    assert json.loads(two_nights.run("status", "--json").out)["awaiting"] == 4
    two_nights.run("approve", "--actor", "ada")
    assert (champion(two_nights)["version"], champion(two_nights)["replaces"]) == (4, 1)
