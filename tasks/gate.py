"""The gate, put before the night's outputs: opens the evaluations, lets the rules decide, keeps the decision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillhouse.data.files import read_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.evaluate.against import Ground
from stillhouse.evaluate.gate import Candidate, Rivals, Verdict, choose, judge
from stillhouse.evaluate.ranks import read_ranks
from stillhouse.evaluate.report import Catalogue, target_masks
from stillhouse.lineage.record import gaps
from stillhouse.params.base import build, read_yaml, stage_values
from stillhouse.params.document import load_document
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.params.gate import GateParams
from stillhouse.stages.evaluate import SPLITS
from tasks import versions
from tasks.night import Night

__all__ = ["Decision", "decide", "decision_digest", "decision_file"]


@dataclass(frozen=True)
class Decision:
    """What the gate said of a night's students."""

    verdicts: tuple[Verdict, ...]
    """One a student, the least good (NDCG@10, leave-one-out) first."""
    chosen: str | None
    """The student to promote; ``None`` where none passed."""
    mode: Literal["automatic", "approve"]
    """Whether the chosen one is promoted, or waits for a person."""
    champion: int | None
    """The version that the students were held against."""
    reference: int | None
    """The version that small losses add up against."""

    def of(self, student: str) -> Verdict:
        """Return the verdict on ``student``."""
        return next(verdict for verdict in self.verdicts if verdict.student == student)

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain data: the same decision, the same bytes."""
        verdicts = [verdict.as_dict() for verdict in self.verdicts]
        held_against = {"champion": self.champion, "reference": self.reference}
        return {"chosen": self.chosen, "mode": self.mode, **held_against, "verdicts": verdicts}

    @property
    def file(self) -> str:
        """Name that it is kept under with the night's run: never over another decision."""
        return decision_file(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 of the decision's canonical JSON: what the ledger names it by."""
        return decision_digest(self.as_dict())


def decision_digest(decision: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a decision's canonical JSON."""
    return hashlib.sha256(json.dumps(decision, sort_keys=True).encode()).hexdigest()


def decision_file(digest: str) -> str:
    """Return the name that the decision with that digest is kept under."""
    return f"gate/decision-{digest[:16]}.json"


def decide(root: Path, night: Night, runs: Mapping[str, str]) -> Decision:
    """Judge every student in params.yaml against the floors, the champion and the reference.

    Args:
        root: the workspace, all of whose stages are up to date.
        night: the night, which names the champion and the reference.
        runs: stage → the tracking run that made its outputs.

    Raises:
        PackageError: an evaluation is not whole.
    """
    document, plain = load_document(root / "params.yaml")
    candidates = [_candidate(root, name, runs) for name in plain["students"]]
    candidates.sort(key=lambda one: ((one.metrics["leave_one_out"] or {}).get("ndcg_at_10") or 0.0, one.name))
    rivals = Rivals(_ranks(root, "_champion"), _ranks(root, "_reference"))
    ground = _ground(root, plain, document.gate)
    verdicts = tuple(judge(one, rivals, ground, document.gate) for one in candidates)
    chosen = choose(verdicts, candidates, document.gate.choose)
    return Decision(verdicts, chosen, document.gate.mode, night.champion, night.reference)


def _ground(root: Path, plain: dict[str, Any], params: GateParams) -> Ground:
    words, events = Vocabulary.load(root / "data" / "vocabulary"), Sequences.open(root / "data" / "sequences")
    measured = build(EvaluateParams, stage_values(EvaluateParams, plain, {}), "params.yaml: evaluate")
    catalogue = Catalogue(events, words.popularity, measured.ks, measured.short_history, measured.head_share)
    categories = words.categories if params.slices.categories else None
    return Ground.of(events.order, {name: target_masks(split, catalogue, categories) for name, split in SPLITS.items()})


def _candidate(root: Path, name: str, runs: Mapping[str, str]) -> Candidate:
    return Candidate(
        name,
        metrics=read_json(root / "metrics" / "evaluate" / f"{name}.json"),
        timings=read_json(root / "timings" / f"{name}.json"),
        package=read_json(root / "packages" / name / "package.json"),
        ranks=_ranks(root, name),
        data=read_json(root / "reports" / "verdict.json"),
        gaps=gaps(read_yaml(root / versions.LOCK), name, runs),
    )


def _ranks(root: Path, name: str) -> Any:
    return read_ranks(root / "evaluations" / name)
