"""Gathers what a student's or a teacher's record is made of: the night's own files and the lock, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stillhouse.data.files import md5_of_files, read_json, sha256_tree
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.lineage.model_card import model_card, teacher_card
from stillhouse.lineage.record import gather, gather_teacher
from stillhouse.lineage.statement import build, canonical, subjects, tree_digest
from stillhouse.params.base import read_yaml
from tasks import versions
from tasks.gate import Decision
from tasks.graph import stage_runs
from tasks.night import HANDED_ON, PREVIOUS, Night

__all__ = ["Record", "TeacherRecord", "record_of", "teacher_record_of"]

#: Histories of the input example.
_EXAMPLES = 3
_EXAMPLE_LENGTH = 5
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Record:
    """What is registered beside a package."""

    package: str
    """SHA-256 of the package."""
    statement: bytes
    """``lineage.json``."""
    card: str
    """The model card, Markdown."""
    metrics: Mapping[str, Any]
    histories: Sequence[Sequence[str]]
    """The input example: the beginnings of a few histories, as item ids."""


@dataclass(frozen=True)
class TeacherRecord:
    """What is registered of a teacher."""

    checkpoint: str
    """SHA-256 of the checkpoint."""
    md5: str
    """DVC's name of it."""
    statement: bytes
    """``lineage.json``."""
    card: str
    """The model card, Markdown."""
    metrics: Mapping[str, Any]
    """What ``check_teacher`` found."""
    start: str
    """``warm``, ``cold`` or ``fitted``."""
    before: Mapping[str, Any] | None
    """The teacher whose weights went on: ``version`` (``None``: not registered), ``night``, ``md5``."""
    reason: str
    """Why it was let through."""


def record_of(root: Path, night: Night, student: str, decision: Decision) -> Record:
    """Gather the record of one student of ``night``.

    Raises:
        RegistryError: ``dvc.lock`` lacks one of the student's stages.
    """
    package = root / "packages" / student
    digest = sha256_tree(package)
    metrics = read_json(root / "metrics" / "evaluate" / f"{student}.json")
    verdict = decision.of(student)
    predicate = gather(
        **_of_night(root, night),
        student=student,
        package=read_json(package / "package.json"),
        package_digest=digest,
        gate=verdict.as_dict() | {"chosen": decision.chosen, "decision": decision.digest},
        metrics=metrics,
        runs=stage_runs(root),
        files={"data/snapshot": md5_of_files(root / "data" / "snapshot")},
    )
    return Record(
        package=digest,
        statement=canonical(build(subjects(package), predicate)),
        card=model_card(
            predicate,
            verdict="passed" if verdict.passed else "refused",
            reason=verdict.reason,
            timings=read_json(root / "timings" / f"{student}.json"),
        ),
        metrics=metrics,
        histories=_examples(root),
    )


def teacher_record_of(root: Path, night: Night, registered: Callable[[str, str], int | None]) -> TeacherRecord:
    """Gather the record of the teacher of ``night``.

    Args:
        root: the workspace.
        night: the night, whose teacher has passed its check.
        registered: from a night and DVC's name of its teacher to the version that it is, where it is one.

    Raises:
        RegistryError: ``dvc.lock`` lacks one of the teacher's stages.
    """
    checkpoint = root / HANDED_ON["teacher"]
    known = _of_night(root, night)
    files = subjects(checkpoint)
    metrics = read_json(root / "metrics" / "check_teacher.json")
    start = read_json(root / "metrics" / "train_teacher.json")["start"]
    teacher = {
        "checkpoint_digest": tree_digest(files),
        "header": read_json(checkpoint / "model.json"),
        "metrics": metrics,
        "start": start,
        "from": _before(night, known["lock"], registered) if start == "warm" else None,
    }
    predicate = gather_teacher(**known, teacher=teacher, runs=_runs(root, known["lock"]))
    reason = (
        f"check_teacher: NDCG@10 {metrics['ndcg_at_10']:.4f}, popularity {metrics['popularity_ndcg_at_10']:.4f} (valid)"
    )
    return TeacherRecord(
        checkpoint=teacher["checkpoint_digest"],
        md5=predicate["links"]["teacher"]["md5"],
        statement=canonical(build(files, predicate)),
        card=teacher_card(predicate, reason=reason),
        metrics=metrics,
        start=start,
        before=teacher["from"],
        reason=reason,
    )


def _before(
    night: Night, lock: Mapping[str, Any], registered: Callable[[str, str], int | None]
) -> dict[str, Any] | None:
    """Return which teacher lay in ``previous/`` as the night's was trained."""
    deps = {dep["path"]: dep["md5"] for dep in lock["stages"]["train_teacher"]["deps"]}
    md5 = deps.get(f"{PREVIOUS}/teacher")
    if night.previous is None or md5 is None:
        return None
    return {"version": registered(night.previous, md5), "night": night.previous, "md5": md5}


def _runs(root: Path, lock: Mapping[str, Any]) -> dict[str, str]:
    """Return stage → tracking run as ``runs/`` has it; the graph itself, which is slow to read, is not asked."""
    files = {name: root / "runs" / f"{name.replace('@', '/')}.json" for name in lock["stages"]}
    return {name: read_json(file)["run_id"] for name, file in files.items() if file.exists()}


def _of_night(root: Path, night: Night) -> dict[str, Any]:
    """Return what the records of a night's students and of its teacher have in common."""
    lock = yaml.load((root / versions.LOCK).read_bytes(), Loader=_LOADER)  # noqa: S506  # safe, in C where there is one
    return {
        "night": night.document(),
        "tag": f"night/{night.id}/{versions.OPEN}",
        "commit": versions.tag_commit(root, night.id, versions.OPEN) or "",
        "lock": lock,
        "params": read_yaml(root / "params.yaml"),
        "verdict": read_json(root / "reports" / "verdict.json"),
        "ancestor": _ancestor(root, night),
    }


def _ancestor(root: Path, night: Night) -> dict[str, Any] | None:
    if night.previous is None:
        return None
    tag = f"night/{night.previous}/{versions.CLOSED}"
    commit = versions.tag_commit(root, night.previous, versions.CLOSED)
    return {"night": night.previous, "tag": tag, "commit": commit, "cold": night.cold}


def _examples(root: Path) -> list[list[str]]:
    """Return the first events of the first few users who have any: an example that the model knows."""
    words = Vocabulary.load(root / "data" / "vocabulary")
    events = Sequences.open(root / "data" / "sequences")
    lengths = np.minimum(np.diff(np.asarray(events.offsets)), _EXAMPLE_LENGTH)
    users = np.flatnonzero(lengths)[:_EXAMPLES]
    return [[words.item_ids[item] for item in events.history(int(user), int(lengths[user]))] for user in users]
