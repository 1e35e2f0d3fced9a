"""A night's teacher is a version of its own, and no reader takes it for a student."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from keys import new_keys

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage import signing, statement
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import counting, following
from stillhouse.lineage.projection import state
from stillhouse.tracking import aliases, ledger_store, registry
from stillhouse.tracking.registry import TEACHER, read_envelope, read_statement, version_of, versions
from stillhouse.tracking.runs import open_night_run
from tasks import champion, promotion
from tasks.champion import ledger_entries
from tasks.history import history, teacher_history
from tasks.naming import model_and_version, version_named
from tasks.night import Night
from tasks.teachers import Teachers, register


def registered(root: Path, night: Night) -> int:
    return register(root, night, open_night_run(root, night.id))


def predicate_of(root: Path, version: int) -> dict[str, Any]:
    return dict(statement.read(read_statement(root, version, TEACHER))["predicate"])


def test_a_teacher_is_a_version_and_an_entry_and_both_name_its_checkpoint(root: Path, taught: Any) -> None:
    night = taught("2026-03-02", b"one")
    assert registered(root, night) == 1
    info = version_of(root, 1, TEACHER)
    digest = sha256_tree(root / "models" / "teacher")
    assert (info.night, info.name, info.package) == ("2026-03-02", "teacher", digest)
    (one,) = ledger_entries(root)
    entry = one.entry
    assert (entry.model, entry.kind, entry.version, entry.night) == ("teacher", "registered", 1, "2026-03-02")
    assert (entry.package, entry.statement, entry.actor) == (digest, info.statement, "check_teacher")
    assert entry.reason == "check_teacher: NDCG@10 0.3000, popularity 0.1000 (valid)"


def test_its_record_goes_back_to_the_snapshot_and_no_further_forward(root: Path, taught: Any) -> None:
    registered(root, taught("2026-03-02", b"one"))
    found = predicate_of(root, 1)
    names = [stage["name"] for stage in found["stages"]]
    assert names == ["ingest", "validate", "prepare", "train_teacher", "check_teacher"]
    assert found["links"]["teacher"] == {"path": "models/teacher", "md5": b"one".hex() + ".dir"}
    assert found["runs"] == {"train_teacher": "r1"}
    assert (found["teacher"]["start"], found["teacher"]["from"], found["ancestor"]) == ("cold", None, None)
    assert found["night"]["tag"] == "night/2026-03-02/open"
    assert len(found["night"]["commit"]) == 40
    assert found["verdict"]["accepted_rows"] == 9


def test_a_teacher_is_registered_once_a_night_however_often_that_is_asked(root: Path, taught: Any) -> None:
    night = taught("2026-03-02", b"one")
    assert registered(root, night) == registered(root, night) == 1
    assert len(versions(root, model=TEACHER)) == len(ledger_entries(root)) == 1


@pytest.mark.parametrize("place", ["append", "register_teacher"])
def test_a_kill_while_it_is_registered_ends_with_one_version_and_one_entry(
    root: Path, taught: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from tasks import teachers

    class Killed(BaseException):
        pass

    def killed(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise Killed

    owner = ledger_store if place == "append" else teachers
    real = getattr(owner, place)
    night = taught("2026-03-02", b"one")
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, killed)
        with pytest.raises(Killed):
            registered(root, night)
    assert registered(root, night) == 1
    assert [info.version for info in versions(root, model=TEACHER)] == [1]
    assert [one.entry.version for one in ledger_entries(root)] == [1]


def test_a_warm_teacher_names_the_version_that_it_started_from(root: Path, taught: Any) -> None:
    registered(root, taught("2026-03-02", b"one"))
    night = taught("2026-03-03", b"two", start="warm", previous="2026-03-02", before=b"one")
    assert registered(root, night) == 2
    found = predicate_of(root, 2)
    assert found["teacher"]["from"] == {"version": 1, "night": "2026-03-02", "md5": b"one".hex() + ".dir"}
    assert found["ancestor"]["night"] == "2026-03-02"
    card = (Path(version_of(root, 2, TEACHER).location) / "README.md").read_text()
    assert "- Weights: warm, from teacher version 1, of night 2026-03-02." in card


def test_an_ancestor_that_was_never_registered_is_named_by_its_night(root: Path, taught: Any) -> None:
    taught("2026-03-02", b"one")
    registered(root, taught("2026-03-03", b"two", start="warm", previous="2026-03-02", before=b"one"))
    assert predicate_of(root, 1)["teacher"]["from"]["version"] is None
    (one,) = teacher_history(root).teachers
    assert (one.before, one.before_night, one.start) == (None, "2026-03-02", "warm")


def test_the_same_checkpoint_of_another_night_is_a_version_of_its_own(root: Path, taught: Any) -> None:
    nights = [taught("2026-03-02", b"one"), taught("2026-03-03", b"one", previous="2026-03-02")]
    assert [registered(root, night) for night in nights] == [1, 2]
    assert [Teachers.of(root).version(night.id, b"one".hex() + ".dir") for night in nights] == [1, 2]


def test_a_revision_that_came_to_the_same_teacher_keeps_its_version(root: Path, taught: Any) -> None:
    registered(root, taught("2026-03-02", b"one"))
    again = taught("2026-03-02.2", b"one", revises="2026-03-02")
    third = taught("2026-03-02.3", b"one", revises="2026-03-02.2")
    assert [registered(root, night) for night in (again, third)] == [1, 1]
    assert len(versions(root, model=TEACHER)) == len(ledger_entries(root)) == 1
    other = taught("2026-03-02.4", b"two", revises="2026-03-02.3")
    assert registered(root, other) == 2
    assert Teachers.of(root).version("2026-03-02.3", b"one".hex() + ".dir") == 1


def test_a_revision_of_a_night_that_never_closed_has_a_version_that_can_be_audited(root: Path, taught: Any) -> None:
    registered(root, taught("2026-03-02", b"one", close=False))
    assert registered(root, taught("2026-03-02.2", b"one", revises="2026-03-02")) == 2


def test_a_teachers_record_is_signed_where_there_is_a_key(
    root: Path, taught: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = new_keys()
    monkeypatch.setenv("STILLHOUSE_SIGNING_KEY", private.decode())
    registered(root, taught("2026-03-02", b"one"))
    key = signing.public_key(public, "test")
    found = signing.verify(read_envelope(root, 1, TEACHER), read_statement(root, 1, TEACHER), [key])
    assert found.state == "verified"


def test_a_teacher_without_its_stage_in_the_lock_is_refused_and_leaves_nothing(root: Path, taught: Any) -> None:
    night = taught("2026-03-02", b"one")
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    del lock["stages"]["check_teacher"]
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    with pytest.raises(RegistryError, match="must hold the stage check_teacher"):
        registered(root, night)
    assert versions(root, model=TEACHER) == []
    assert ledger_entries(root) == []


@pytest.fixture
def among_teachers(root: Path, judged: Callable[..., int]) -> Path:
    """A workspace with four students' decisions among a teacher's entries of the same numbers and nights.

    The teachers' entries are of every kind that decides something, which is worse than a night writes.
    """

    def teach(version: int, kind: str, replaces: int | None = None) -> None:
        entry = Entry(
            model=TEACHER,
            kind=kind,  # type: ignore[arg-type]
            key=f"teacher:{version}:{kind}",
            night=f"2026-03-{11 + version}",
            version=version,
            name="teacher",
            package="f" * 64,
            statement="e" * 64,
            verdict="d" * 64,
            replaces=replaces,
            reason="it taught",
            actor="check_teacher",
            time="2026-03-12T03:00:00+00:00",
        )
        ledger_store.append(root, partial(following, entry), counting)

    teach(4, "promoted")
    for version, kind in enumerate(("promoted", "registered", "refused", "awaiting"), 1):
        teach(version, "registered")
        teach(version, "refused")
        assert judged(kind, replaces=1 if kind == "awaiting" else None) == version
        teach(version, "promoted", version - 1 or 4)
        teach(version, "awaiting")
    return root


def answers(root: Path) -> dict[str, Any]:
    """What every reader of the ledger that speaks of students says, but for the hash of the ledger's head."""
    entries = ledger_entries(root)
    told = history(root)
    moved = promotion.promotion(root, 2, "because", "ada")
    waiting = promotion.approval(root, None, "because", "ada")
    turned_down = promotion.rejection(root, 4, "because", "ada")
    assert moved is not None
    with pytest.raises(RegistryError, match="found it refused: what the gate said"):
        promotion.promotion(root, 3, "because", "ada")
    with pytest.raises(RegistryError, match="found champion version 1 and none before it"):
        promotion.rollback(root, "because", "ada")
    return {
        "state": state(entries),
        "repaired": champion.repair(root),
        "aliases": aliases.get_aliases(root),
        "champion": champion.champion_package(root),
        "line": champion.champion_line(root),
        "reference": champion.reference_version(root),
        "packages": [champion.package_of(root, version) for version in (1, 2, 3, 4)],
        "promoted by": [champion.promoted_by(root, f"2026-03-{day}") for day in (12, 13, 14, 15)],
        "moves": [
            (move.kind, move.version, move.replaces, move.verdict, move.reason)
            for move in (moved, waiting, turned_down)
        ],
        "history": [(one.entry.model, one.entry.key, one.entry.kind, one.entry.package) for one in told.entries],
        "history's champion": told.champion and told.champion.package,
        "named": [version_named(root, name) for name in ("champion", "challenger", "awaiting", "2", "student@3")],
    }


def test_a_teacher_of_the_same_number_is_never_taken_for_a_student(among_teachers: Path) -> None:
    root = among_teachers
    found = answers(root)
    entries = ledger_entries(root)
    students = [one for one in entries if one.entry.model == "student"]
    assert len(students) < len(entries)
    assert found["state"].champion == 1
    assert found["promoted by"] == [True, False, False, False]
    assert found["packages"] == [one.entry.package for one in students]
    assert [row[0] for row in found["history"]] == ["student"] * 4
    assert found["aliases"] == {"champion": 1, "challenger": 4}
    assert [(kind, version, replaces) for kind, version, replaces, _, _ in found["moves"]] == [
        ("promoted", 2, 1),
        ("promoted", 4, 1),
        ("rejected", 4, None),
    ]
    assert {verdict for *_, verdict, _ in found["moves"]} == {"a" * 64}
    assert found["named"] == [1, 4, 4, 2, 3]
    assert found["reference"] == 1


def test_a_persons_promotion_stands_among_the_teachers_entries(among_teachers: Path) -> None:
    root = among_teachers
    move = promotion.promotion(root, 2, "because", "ada")
    assert move is not None
    assert promotion.carry_out(root, move).champion == 2
    assert champion.promoted_by(root, "2026-03-13")
    assert promotion.carry_out(root, promotion.rollback(root, "because", "ada")).champion == 1


def test_the_teachers_history_says_how_good_each_was_what_it_started_from_and_whom_it_taught(
    root: Path, taught: Any, registration: dict[str, Any]
) -> None:
    registered(root, taught("2026-03-12", b"one"))
    second = taught("2026-03-13", b"two", start="warm", previous="2026-03-12", before=b"one")
    registered(root, second)
    for number, (night, teacher) in enumerate([("2026-03-12", None), ("2026-03-13", 2), ("2026-03-13.2", 2)], 1):
        package = registration["package"]
        (package / "package.json").write_text(json.dumps({"night": night}))
        given = registration | {"night": night, "digest": sha256_tree(package), "teacher": teacher}
        version = registry.register_student(root, **given, run_id=open_night_run(root, night))
        assert version == number
        entry = Entry(
            kind="refused",
            key=f"gate:{version}",
            night=night,
            version=version,
            name="gru",
            package=given["digest"],
            reason="r",
            actor="gate",
            time="2026-03-12T03:00:00+00:00",
        )
        ledger_store.append(root, partial(following, entry), counting)
    first, then = teacher_history(root).teachers
    assert first.figures == then.figures == {"leave_one_out": 0.25, "time_window": 0.125}
    assert (first.start, first.before, then.start, then.before) == ("cold", None, "warm", 1)
    assert [list(first.students), list(then.students)] == [[1], [2, 3]]
    assert [one.md5 for one in (first, then)] == [weights.hex() + ".dir" for weights in (b"one", b"two")]
    assert teacher_history(root, "2026-01-01").teachers == []
    assert [one.entry.version for one in history(root).entries] == [1, 2, 3]


def test_before_the_first_registered_teacher_the_history_is_empty(root: Path, judged: Any) -> None:
    judged("promoted")
    assert teacher_history(root).teachers == []


def test_a_teacher_is_named_by_its_number_alone(root: Path, taught: Any) -> None:
    registered(root, taught("2026-03-02", b"one"))
    assert model_and_version(root, "teacher@1") == ("teacher", 1)
    with pytest.raises(RegistryError, match=r"version must be one of 1; got 7 \(registered model teacher"):
        model_and_version(root, "teacher@7")
    with pytest.raises(RegistryError, match="a teacher must be named by its number, such as teacher@3; got"):
        model_and_version(root, "teacher@champion")
    with pytest.raises(RegistryError, match="version must be one of none; got 1"):
        model_and_version(root, "1")
