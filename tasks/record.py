"""Gathers what a student's record is made of: the night's own files and the lock, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.files import md5_of_files, read_json, sha256_tree
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.lineage.model_card import model_card
from stillhouse.lineage.record import gather
from stillhouse.lineage.statement import build, canonical, subjects
from stillhouse.params.base import read_yaml
from tasks import versions
from tasks.gate import Decision
from tasks.graph import stage_runs
from tasks.night import Night

__all__ = ["Record", "record_of"]

#: Histories of the input example.
_EXAMPLES = 3
_EXAMPLE_LENGTH = 5


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


def record_of(root: Path, night: Night, student: str, decision: Decision) -> Record:
    """Gather the record of one student of ``night``.

    Raises:
        RegistryError: ``dvc.lock`` lacks one of the student's stages.
    """
    package = root / "packages" / student
    digest = sha256_tree(package)
    metrics = read_json(root / "metrics" / "evaluate" / f"{student}.json")
    verdict = decision.of(student)
    tag = f"night/{night.id}/{versions.OPEN}"
    predicate = gather(
        night=night.document(),
        tag=tag,
        commit=versions.tag_commit(root, night.id, versions.OPEN) or "",
        lock=read_yaml(root / versions.LOCK),
        student=student,
        params=read_yaml(root / "params.yaml"),
        verdict=read_json(root / "reports" / "verdict.json"),
        package=read_json(package / "package.json"),
        package_digest=digest,
        gate=verdict.as_dict() | {"chosen": decision.chosen, "decision": decision.digest},
        metrics=metrics,
        runs=stage_runs(root),
        ancestor=_ancestor(root, night),
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
