"""What a run will do, for every situation: a real git and DVC repository, the tiny shop, nights made by hand."""

from dataclasses import replace

import pandas as pd
import pytest
from workspaces import TINY, make_workspace

from stillhouse.errors import NightError, ParamsError, SourceError
from stillhouse.lineage.entry import entry_hash
from tasks import night as nights
from tasks import plan as plans
from tasks import versions
from tasks.plan import Request, plan_night

FILE = {
    **TINY,
    "source.kind": "file",
    "source.path": "events.csv",
    "source.columns": {"user": "u", "item": "i", "timestamp": "t", "position": None, "rating": None, "event": None},
}


@pytest.fixture
def shop(tmp_path):
    return make_workspace(tmp_path / "ws", TINY)


@pytest.fixture
def file(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path / "file", FILE)
    monkeypatch.chdir(workspace.root)  # as the command line does: paths are relative to the workspace
    write(workspace, 3)
    return workspace


def write(workspace, rows):
    frame = pd.DataFrame(
        {"u": range(rows), "i": range(rows), "t": [1_771_000_000 + row * 86_400 for row in range(rows)]}
    )
    frame.to_csv(workspace.root / "events.csv", index=False)


def plan(workspace, **request):
    return plan_night(Request(workspace.root, **request))


def put(workspace, night, *states, message="m"):
    """Write ``night`` as the workspace's and tag it."""
    import yaml

    (workspace.root / "night.yaml").write_text(yaml.safe_dump(night.document()))
    (workspace.root / "dvc.lock").touch()
    for state in states:
        versions.tag_night(workspace.root, night.id, state, message, ["night.yaml", "previous.dvc", "dvc.lock"])


@pytest.fixture
def nothing_stale(monkeypatch):
    """DVC has nothing to say: these nights were never performed."""
    monkeypatch.setattr(plans.graph, "changed", lambda root: {})


def test_the_first_run_opens_the_shops_first_night_cold(shop):
    found = plan(shop)
    assert (found.action, found.night.id, found.night.cold, found.night.previous) == ("open", "2026-03-02", True, None)


def test_an_open_night_is_gone_on_with(shop):
    night = plan(shop).night
    put(shop, night, versions.OPEN)
    assert plan(shop) == nights.Plan("resume", night)
    assert plan(shop, as_of="2026-03-02").action == "resume"
    assert plan(shop, as_of="2026-03-03").action == "open"


def test_a_night_killed_while_it_opened_is_opened_again(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    second = plan(shop, as_of="2026-03-03").night
    put(shop, second)
    assert plan(shop) == nights.Plan("open", second)


def test_nothing_new_is_nothing_to_do(shop, nothing_stale):
    night = plan(shop).night
    put(shop, night, versions.OPEN, versions.CLOSED)
    assert plan(shop) == nights.Plan("nothing", night)
    assert plan(shop, force=True) == nights.Plan("repeat", night)


@pytest.mark.parametrize("change", [{"gate.margin": 0.1}, {"students.small.model.width": 16}])
def test_a_setting_that_only_the_flow_reads_is_seen_and_forces_a_revision(shop, nothing_stale, change):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    shop.set(change)
    quiet = plan(shop)
    assert quiet.action == "nothing"
    assert f"since ({next(iter(change)).partition('.')[0]}): --force" in quiet.notes[0]
    forced = plan(shop, force=True)
    assert (forced.action, forced.night.id, forced.night.revises) == ("open", "2026-03-02.2", "2026-03-02")


def test_how_often_nights_start_cold_makes_no_other_night_of_one_that_has_closed(shop, nothing_stale):
    night = plan(shop).night
    put(shop, night, versions.OPEN, versions.CLOSED)
    shop.set({"night.cold_every": 3})
    assert plan(shop) == nights.Plan("nothing", night)


def test_cold_nights_are_counted_without_revisions(shop, nothing_stale):
    shop.set({"night.cold_every": 2})
    for night in (plan(shop).night, plan(shop, as_of="2026-03-03").night):
        put(shop, night, versions.OPEN, versions.CLOSED)
    shop.set({"gate.margin": 0.1})
    again = plan(shop, force=True).night
    assert again.id == "2026-03-03.2"
    put(shop, again, versions.OPEN, versions.CLOSED)
    assert plan(shop, as_of="2026-03-04").night.cold


@pytest.mark.parametrize("states", [(versions.OPEN,), (versions.OPEN, versions.CLOSED)], ids=["open", "closed"])
def test_a_warm_night_is_performed_again_cold_where_that_is_asked(shop, nothing_stale, states):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    second = plan(shop, as_of="2026-03-03").night
    put(shop, second, *states)
    found = plan(shop, as_of="2026-03-03", cold=True)
    assert (found.action, found.night.id, found.night.cold) == ("open", "2026-03-03.2", True)
    assert (found.night.revises, found.night.previous) == ("2026-03-03", second.previous)
    put(shop, found.night, *states)
    again = plan(shop, as_of="2026-03-03", cold=True)
    assert again.action == ("resume" if states == (versions.OPEN,) else "nothing")


def test_a_night_killed_while_it_opened_is_opened_again_cold_where_that_is_asked(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    second = plan(shop, as_of="2026-03-03").night
    put(shop, second)
    assert plan(shop, cold=True) == nights.Plan("open", replace(second, cold=True))


def test_a_new_night_starts_cold_where_that_is_asked(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    assert plan(shop, as_of="2026-03-03", cold=True).night.cold
    assert not plan(shop, as_of="2026-03-03").night.cold


def test_an_open_night_that_is_left_behind_is_named(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    put(shop, plan(shop, as_of="2026-03-03").night, versions.OPEN)
    found = plan(shop, as_of="2026-03-04")
    assert found.night.id == "2026-03-04"
    assert found.notes == ("night 2026-03-03, which was opened and has not closed, is left behind",)


def test_damaged_data_is_named_with_what_mends_it(shop, monkeypatch):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    soft = {"data/soft": "modified"}
    told = {"export": [{"changed outs": soft}], "learn": [{"changed deps": soft}]}
    monkeypatch.setattr(plans.graph, "changed", lambda root: told)
    assert (
        "data/soft must be what its stage made, found it changed or gone (`dvc checkout --force data/soft`"
        in plan(shop).notes[0]
    )


def test_changed_code_forces_a_revision(shop, monkeypatch):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    monkeypatch.setattr(plans.graph, "changed", lambda root: {"prepare": []})
    assert plan(shop, force=True).night.revises == "2026-03-02"


def test_the_next_day_is_a_night_of_its_own_with_last_nights_outputs(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    found = plan(shop, as_of="2026-03-03").night
    assert (found.id, found.previous, found.cold, found.revises) == ("2026-03-03", "2026-03-02", False, None)


def test_an_earlier_night_is_refused(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    with pytest.raises(NightError, match="must not be earlier"):
        plan(shop, as_of="2026-03-01")


def test_a_file_without_anything_new_is_nothing_to_do_at_any_time(file, nothing_stale):
    put(file, plan(file, as_of="2026-03-01").night, versions.OPEN, versions.CLOSED)
    assert plan(file).action == "nothing"
    write(file, 4)
    assert plan(file).action == "open"


def test_later_rows_left_in_the_source_open_a_night_once_they_are_due(file, nothing_stale):
    file.set({"source.later_rows": "leave"})
    put(file, plan(file, as_of="2026-02-14").night, versions.OPEN, versions.CLOSED)
    assert plan(file, as_of="2026-02-14T01:00").action == "nothing"
    assert plan(file).action == "open"


def test_a_night_whose_time_is_past_leaves_later_rows_to_the_nights_that_are_due_for_them(file, nothing_stale):
    missed = ["2026-02-14T03:00", "2026-02-15T03:00", "2026-02-16T03:00"]
    found = []
    for time in missed:
        made = plan(file, as_of=time, past=True)
        assert (made.action, made.night.source["later_rows"]) == ("open", "leave")
        put(file, made.night, versions.OPEN, versions.CLOSED)
        found.append(made.night.fingerprint)
    assert len(set(found)) == 3, "each has rows of its own, though the file is one"
    assert plan(file, as_of="2026-02-17T03:00", past=True).action == "nothing"


def test_a_night_that_a_person_opened_goes_on_when_its_time_is_past(file):
    put(file, plan(file, as_of="2026-02-14T03:00").night, versions.OPEN)
    found = plan(file, as_of="2026-02-14T03:00", past=True)
    assert (found.action, found.night.id) == ("resume", "2026-02-14T030000")
    assert found.night.source["later_rows"] == "leave"


def test_a_corrected_source_for_the_same_time_is_a_revision_from_the_same_start(file, nothing_stale):
    put(file, plan(file, as_of="2026-03-01").night, versions.OPEN, versions.CLOSED)
    write(file, 5)
    found = plan(file, as_of="2026-03-01").night
    assert (found.id, found.revises, found.previous) == ("2026-03-01.2", "2026-03-01", None)


def test_a_refused_nights_mended_source_goes_on_under_the_same_time(file):
    put(file, plan(file, as_of="2026-03-01").night, versions.OPEN)
    write(file, 5)
    found = plan(file, as_of="2026-03-01")
    assert (found.action, found.night.id) == ("resume", "2026-03-01")
    assert plan(file).night.id != "2026-03-01"


def test_a_promoted_night_whose_settings_changed_before_it_closed_is_revised(shop, monkeypatch):
    night = plan(shop).night
    put(shop, night, versions.OPEN)
    monkeypatch.setattr(plans, "promoted_by", lambda root, name: name == night.id)
    monkeypatch.setattr(plans.graph, "changed", lambda root: {})
    assert plan(shop).action == "resume"
    shop.set({"gate.margin": 0.1})
    found = plan(shop)
    assert (found.action, found.night.revises) == ("open", night.id)


def test_the_shop_and_other_data_do_not_share_a_workspace(shop, nothing_stale):
    put(shop, plan(shop).night, versions.OPEN, versions.CLOSED)
    write(shop, 3)
    with pytest.raises(NightError, match=r"fresh clone"):
        plan(shop, source="events.csv")


def test_a_ledger_that_is_gone_stops_the_night(shop, nothing_stale):
    night = plan(shop).night
    put(shop, night, versions.OPEN, versions.CLOSED, message=versions.closing_message(night.id, entry_hash("x")))
    second = replace(night, id="2026-03-03", as_of="2026-03-03T00:00:00+00:00", fingerprint="")
    put(shop, second, versions.OPEN)
    from stillhouse.errors import RegistryError
    from tasks.champion import champion_version

    with pytest.raises(RegistryError, match=r"night/2026-03-02/closed"):
        champion_version(shop.root)


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        ({"as_of": "yesterday"}, ParamsError, "--as-of"),
        ({"as_of": ""}, ParamsError, "--as-of"),
        ({"source": "nowhere.csv"}, SourceError, r"nowhere.csv \(--source"),
    ],
)
def test_what_cannot_be_is_refused_by_name(shop, request_, error, said):
    with pytest.raises(error, match=said):
        plan(shop, **request_)


def test_a_broken_night_file_is_named(shop):
    (shop.root / "night.yaml").write_text("id: x\n")
    with pytest.raises(NightError, match=r"night\.yaml must hold"):
        plan(shop)


def test_looking_creates_nothing(shop):
    plan(shop)
    assert not (shop.root / ".stillhouse").exists()
