"""The gate, put before the night's outputs: opens the evaluations, lets the rules decide, keeps the decision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json
from stillhouse.evaluate.gate import Candidate, Verdict, choose, judge
from stillhouse.evaluate.ranks import read_ranks
from stillhouse.params.document import load_document

__all__ = ["Decision", "decide"]


@dataclass(frozen=True)
class Decision:
    """What the gate said of a night's students."""

    verdicts: tuple[Verdict, ...]
    """One a student, the least good (NDCG@10, leave-one-out) first."""
    chosen: str | None
    """The student to promote; ``None`` where none passed."""

    def of(self, student: str) -> Verdict:
        """Return the verdict on ``student``."""
        return next(verdict for verdict in self.verdicts if verdict.student == student)

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain data: the same decision, the same bytes."""
        return {"chosen": self.chosen, "verdicts": [verdict.as_dict() for verdict in self.verdicts]}

    @property
    def digest(self) -> str:
        """SHA-256 of the decision's canonical JSON: what the ledger names it by."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def decide(root: Path) -> Decision:
    """Judge every student in params.yaml against the floors and the champion.

    Args:
        root: the workspace, all of whose stages are up to date.

    Raises:
        PackageError: an evaluation is not whole.
    """
    document, plain = load_document(root / "params.yaml")
    candidates = [_candidate(root, name) for name in plain["students"]]
    candidates.sort(key=lambda one: ((one.metrics["leave_one_out"] or {}).get("ndcg_at_10") or 0.0, one.name))
    champion = read_ranks(root / "evaluations" / "_champion")
    order = read_json(root / "data" / "sequences" / "sequences.json")["order"]
    verdicts = tuple(judge(one, champion, document.gate, order=order) for one in candidates)
    return Decision(verdicts, choose(verdicts, candidates, document.gate.choose))


def _candidate(root: Path, name: str) -> Candidate:
    return Candidate(
        name,
        metrics=read_json(root / "metrics" / "evaluate" / f"{name}.json"),
        timings=read_json(root / "timings" / f"{name}.json"),
        package=read_json(root / "packages" / name / "package.json"),
        ranks=_ranks(root, name),
    )


def _ranks(root: Path, name: str) -> Any:
    return read_ranks(root / "evaluations" / name)
