"""A person moves the champion: on a real registry and ledger, with students registered as a night registers them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.data.files import sha256_tree
from stillhouse.errors import ParamsError, RegistryError
from stillhouse.tracking import aliases, registry
from stillhouse.tracking.runs import open_night_run
from tasks import promotion
from tasks.champion import champion_line, ledger_entries, promoted_by, reference_version, repair
from tasks.history import history
from tasks.naming import version_named
from tasks.promotion import approval, carry_out, rejection, rollback

ROOT = Path(__file__).parents[3]


def promoted(root: Path, version: int, **named: Any) -> promotion.Move:
    move = promotion.promotion(root, version, "because", "ada", **named)
    assert move is not None
    return move


def test_a_version_that_passed_becomes_champion_and_the_old_one_previous(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("registered")
    now = carry_out(root, promoted(root, 2))
    assert (now.champion, now.previous) == (2, 1)
    assert aliases.get_aliases(root) == {"champion": 2, "previous": 1}
    entry = ledger_entries(root)[-1].entry
    assert (entry.kind, entry.replaces, entry.reason, entry.actor) == ("promoted", 1, "because", "ada")
    assert "version 2" in champion_line(root)


def test_the_champion_is_not_promoted_again(root: Path, judged: Any) -> None:
    judged("promoted")
    assert promotion.promotion(root, 1, "because", "ada") is None
    assert len(ledger_entries(root)) == 1


def test_a_refused_version_needs_somebody_who_answers_for_it(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("refused")
    with pytest.raises(RegistryError, match=r"found it refused: what the gate said.*--override-gate"):
        promotion.promotion(root, 2, "because", "ada")
    assert carry_out(root, promoted(root, 2, override_gate=True)).champion == 2


def test_a_version_that_never_came_before_the_gate_is_not_promoted(root: Path, judged: Any, registration: Any) -> None:
    judged("promoted")
    given = registration | {"night": "2026-04-01", "digest": sha256_tree(registration["package"])}
    registry.register_student(root, **given, run_id=open_night_run(root, "2026-04-01"))
    with pytest.raises(RegistryError, match="must have come before the gate"):
        promotion.promotion(root, 2, "because", "ada")
    with pytest.raises(RegistryError, match="version must be one of 1, 2; got 7"):
        promotion.promotion(root, 7, "because", "ada")


@pytest.mark.parametrize("name", ["model.onnx", "lineage.json"])
def test_altered_files_are_not_promoted(root: Path, judged: Any, name: str) -> None:
    judged("promoted")
    judged("registered")
    (file,) = Path(registry.version_of(root, 2).location).rglob(name)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(RegistryError, match="must hash to"):
        promotion.promotion(root, 2, "because", "ada")
    assert repair(root).champion == 1


def test_tags_that_were_rewritten_do_not_hide_another_package(root: Path, judged: Any, client: Any) -> None:
    judged("promoted")
    judged("registered")
    (file,) = Path(registry.version_of(root, 2).location).rglob("model.onnx")
    file.write_bytes(file.read_bytes() + b" ")
    package = file.parent
    client.set_model_version_tag("student", "2", "package", sha256_tree(package))
    with pytest.raises(RegistryError, match="must be what ledger entry"):
        promotion.promotion(root, 2, "because", "ada")


def test_rolling_back_returns_to_the_champion_before_and_no_further(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("promoted", replaces=1)
    now = carry_out(root, rollback(root, "clicks fell", "ada"))
    assert (now.champion, now.previous) == (1, None)
    with pytest.raises(RegistryError, match="found champion version 1 and none before it"):
        rollback(root, "again", "ada")


def test_of_two_promotions_decided_at_once_one_wins_and_the_other_is_told(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("registered")
    judged("registered")
    moves = [promoted(root, 2), promoted(root, 3)]

    def attempt(move: promotion.Move) -> str:
        try:
            return f"champion {carry_out(root, move).champion}"
        except RegistryError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(attempt, moves))
    winner = repair(root).champion
    assert winner in (2, 3)
    assert sum("another was first" in end for end in ends) == 1
    assert [one.entry.version for one in ledger_entries(root) if one.entry.moves] == [1, winner]


def test_the_same_decision_taken_twice_is_one_entry(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("registered")
    move = promoted(root, 2)
    assert carry_out(root, move) == carry_out(root, replace(move, reason="said otherwise"))
    assert [one.entry.version for one in ledger_entries(root)] == [1, 2, 2]


KILLED = """
import gc; gc.disable()  # as it loads much and ends soon
import os, signal, sys
from pathlib import Path
from stillhouse.tracking import aliases, ledger_store
from tasks import promotion
root, place = Path(sys.argv[1]), sys.argv[2]
owner = {"_put": ledger_store, "set_alias": aliases, "repair": aliases}[place]
setattr(owner, place, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
promotion.carry_out(root, promotion.promotion(root, 2, "because", "ada"))
"""


@pytest.mark.parametrize(("place", "finished"), [("_put", False), ("repair", True), ("set_alias", True)])
def test_a_promotion_that_was_killed_is_finished_or_undone_by_the_next_command(
    root: Path, judged: Any, place: str, finished: bool
) -> None:
    judged("promoted")
    judged("registered")
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), place], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert history(root).state.champion == (2 if finished else 1)
    assert aliases.get_aliases(root)["champion"] == (2 if finished else 1)


def test_an_approved_version_becomes_champion(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    assert version_named(root, "awaiting") == 2
    now = carry_out(root, approval(root, None, "looks right", "ada"))
    assert (now.champion, now.awaiting) == (2, None)
    assert ledger_entries(root)[-1].entry.verdict == "a" * 64
    with pytest.raises(RegistryError, match="found none waiting"):
        approval(root, None, "again", "ada")


def test_a_rejected_version_leaves_the_champion(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    now = carry_out(root, rejection(root, 2, "too odd", "ada"))
    assert (now.champion, now.challenger, now.awaiting) == (1, 2, None)


def test_another_student_that_is_refused_does_not_unwait_the_one_that_waits(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    judged("refused")
    assert repair(root).awaiting == 2
    assert carry_out(root, approval(root, None, "looks right", "ada")).champion == 2


@pytest.mark.parametrize("first", ["approve", "reject"])
def test_of_an_approval_and_a_rejection_at_once_one_stands(root: Path, judged: Any, first: str) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    moves = {"approve": approval(root, None, "looks right", "ada"), "reject": rejection(root, None, "too odd", "bob")}
    second = next(name for name in moves if name != first)
    carry_out(root, moves[first])
    with pytest.raises(RegistryError, match="must"):
        carry_out(root, moves[second])
    assert repair(root).champion == (2 if first == "approve" else 1)


def test_a_person_does_not_go_by_the_gates_name(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("registered")
    with pytest.raises(RegistryError, match="must not go by the name gate"):
        carry_out(root, replace(promoted(root, 2), actor="gate"))


def test_a_version_that_a_person_promoted_is_known_by_its_night(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    assert not promoted_by(root, "2026-03-13")
    carry_out(root, approval(root, None, "looks right", "ada"))
    assert promoted_by(root, "2026-03-13")


def test_a_champion_that_is_gone_from_the_registry_is_one_line(root: Path, judged: Any, client: Any) -> None:
    judged("promoted")
    client.delete_model_version("student", "1")
    with pytest.raises(RegistryError, match="must be in the registry, found it gone"):
        repair(root)


def test_only_the_version_that_waits_is_approved(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("awaiting", replaces=1)
    with pytest.raises(RegistryError, match="version 1 must wait for approval, found version 2 waiting"):
        approval(root, 1, "looks right", "ada")


def test_an_approval_against_another_champion_is_refused(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("promoted", replaces=1)
    judged("awaiting", replaces=2)
    carry_out(root, rollback(root, "clicks fell", "ada"))
    with pytest.raises(RegistryError, match=r"held it against \(version 2\), found version 1"):
        approval(root, None, "looks right", "ada")


@pytest.mark.parametrize("name", ["1", "v1", "student@1", "student/1", "champion", "student@champion"])
def test_a_version_has_many_names(root: Path, judged: Any, name: str) -> None:
    judged("promoted")
    assert version_named(root, name) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("best", "must be named by"), ("previous", "there must be a previous"), ("9" * 30, "must be named by")],
)
def test_a_name_of_nothing_is_refused(root: Path, judged: Any, name: str, says: str) -> None:
    judged("promoted")
    with pytest.raises(RegistryError, match=says):
        version_named(root, name)


def test_an_alias_moved_by_hand_names_nobody_and_is_set_back(root: Path, judged: Any) -> None:
    judged("promoted")
    judged("refused")
    aliases.set_alias(root, "champion", 2)
    assert version_named(root, "champion") == 1
    history(root)
    assert aliases.get_aliases(root)["champion"] == 1


@pytest.mark.parametrize(("asked", "version"), [("first", 1), ("none", None), (3, 3)])
def test_the_reference_stays_while_champions_come_and_go(root: Path, judged: Any, asked: Any, version: Any) -> None:
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["gate"]["reference"] = asked
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    judged("promoted")
    judged("promoted", replaces=1)
    judged("promoted", replaces=2)
    assert reference_version(root) == version


def test_before_the_first_champion_there_is_no_reference(root: Path, judged: Any) -> None:
    judged("refused")
    assert reference_version(root) is None


def test_a_reference_that_is_not_there_lists_those_that_are(root: Path, judged: Any) -> None:
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["gate"]["reference"] = 9
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    judged("promoted")
    with pytest.raises(RegistryError, match=r"gate\.reference must name a version: version must be one of 1; got 9"):
        reference_version(root)


def test_history_says_who_was_champion_at_a_time_and_why(root: Path, judged: Any) -> None:
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["night"]["timezone"] = "Europe/Berlin"
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    judged("promoted", time="2026-03-12T03:00:00+00:00")
    judged("promoted", replaces=1, time="2026-03-13T03:00:00+00:00")
    then = history(root, "2026-03-13 03:59")  # 02:59 UTC
    assert then.state.champion == 1
    assert then.champion is not None
    assert (then.champion.version, then.champion.reason) == (1, "what the gate said")
    assert then.time(then.champion).isoformat() == "2026-03-12T04:00:00+01:00"
    assert history(root, "2026-03-13 04:00").state.champion == 2
    assert history(root, "2026-03-11").champion is None
    with pytest.raises(ParamsError, match=r"must be a date or an ISO time.*'noon' \(--at\)"):
        history(root, "noon")
