"""The gate: may this student become champion? Rules over numbers, each with its value, limit and verdict.

Nothing here opens a file or changes the world. `judge` looks at one student,
`choose` at those that pass. A rule that cannot be decided is *inconclusive*,
and that is not a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stillhouse.evaluate.against import Ground, against_champion, against_reference, regressions
from stillhouse.evaluate.ranks import Ranks
from stillhouse.evaluate.rule import Rule, at_least, at_most
from stillhouse.params.gate import GateParams

__all__ = ["Candidate", "Rivals", "Verdict", "choose", "judge"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """All that is known of one student on the night."""

    name: str
    metrics: Mapping[str, Any]
    """What the stage ``evaluate`` returned."""
    timings: Mapping[str, Any]
    """Its timings file."""
    package: Mapping[str, Any]
    """Its ``package.json``."""
    ranks: Ranks
    """The ranks that its evaluation kept."""
    data: Mapping[str, Any]
    """The verdict on the night's data (``reports/verdict.json``)."""
    gaps: Sequence[str]
    """What its record could not name; empty when its lineage is complete."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """What a student is held against, ranked on tonight's targets; None where there is none."""

    champion: Ranks | None
    reference: Ranks | None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one student."""

    student: str
    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule passed."""
        return all(rule.passed for rule in self.rules)

    @property
    def inconclusive(self) -> bool:
        """Whether it failed only because something could not be decided."""
        return not self.passed and all(rule.passed or rule.inconclusive for rule in self.rules)

    @property
    def reason(self) -> str:
        """The texts of the rules that did not pass, or that all did."""
        return "; ".join(rule.text for rule in self.rules if not rule.passed) or "every rule passed"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for the ledger and the lineage: the same verdict, the same bytes."""
        return {
            "student": self.student,
            "passed": self.passed,
            "inconclusive": self.inconclusive,
            "reason": self.reason,
            "rules": [asdict(rule) for rule in self.rules],
        }


def judge(student: Candidate, rivals: Rivals, ground: Ground, params: GateParams) -> Verdict:
    """Return the verdict on ``student``.

    Args:
        student: what was measured of it.
        rivals: the ranks of the champion and of the fixed reference on the same night.
        ground: the targets on which they are compared, and the slices among them.
        params: the section ``gate`` of params.yaml.
    """
    found = student.metrics["leave_one_out"] or {}
    ndcg, baseline = found.get("ndcg_at_10"), _popularity(student.metrics)
    package = student.package
    return Verdict(
        student.name,
        (
            _finite(student.metrics),
            at_least("ndcg_floor", "NDCG@10 (leave-one-out)", ndcg, params.min_ndcg_at_10),
            _over_popularity(ndcg, baseline, params.min_over_popularity),
            at_most("bytes", "bytes of the model", student.metrics["bytes"], params.max_bytes),
            at_most("latency", "p99 latency of one request in ms", student.timings["p99_ms"], params.max_p99_ms),
            at_most("parity", "largest difference from the checkpoint", package["parity"], package["parity_limit"]),
            _data(student.data, params.max_quarantined),
            _lineage(student.gaps),
            against_champion(student.ranks, rivals.champion, ground, params),
            against_reference(student.ranks, rivals.reference, ground, params),
            regressions(student.ranks, rivals.champion, ground, params),
        ),
    )


def choose(
    verdicts: Iterable[Verdict],
    candidates: Sequence[Candidate],
    rule: Literal["best_ndcg", "smallest", "fastest"],
    protocol: Literal["leave_one_out", "time_window"] | None = None,
) -> str | None:
    """Return the name of the student to promote among those that pass, or None.

    Args:
        verdicts: one a student.
        candidates: the same students.
        rule: ``best_ndcg`` (NDCG@10), ``smallest`` (bytes) or ``fastest`` (median latency).
        protocol: where ``best_ndcg`` looks; None: the time window where every student that
            passed has one, leave-one-out otherwise.

    Equal values go to the smaller student, then to the first by name.
    """
    passed = {verdict.student for verdict in verdicts if verdict.passed}
    running = [candidate for candidate in candidates if candidate.name in passed]
    if not running:
        return None
    if protocol is None:
        protocol = "time_window" if all(one.metrics.get("time_window") for one in running) else "leave_one_out"
    where = protocol

    def value(one: Candidate) -> float:
        if rule == "best_ndcg":
            return -float(one.metrics[where]["ndcg_at_10"])
        return float(one.metrics["bytes"] if rule == "smallest" else one.timings["p50_ms"])

    return min(running, key=lambda one: (value(one), one.metrics["bytes"], one.name)).name


def _data(verdict: Mapping[str, Any], limit: float) -> Rule:
    if not verdict["passed"]:
        broken = [check["text"] for check in verdict["checks"] if check["level"] == "table" and not check["passed"]]
        return Rule(
            "data", None, limit, False, f"the night's data must be fit to learn from, found: {'; '.join(broken)}"
        )
    rows = verdict["snapshot_rows"]
    share = verdict["quarantined_rows"] / rows if rows else None
    return at_most("data", "share of the night's rows in quarantine", share, limit)


def _lineage(gaps: Sequence[str]) -> Rule:
    text = "the record names all that the student came from"
    if gaps:
        text = f"the record must name all that the student came from, it lacks {', '.join(gaps)}"
    return Rule("lineage", len(gaps), 0, not gaps, text)


def _popularity(metrics: Mapping[str, Any]) -> float | None:
    rows = metrics["popularity"]["leave_one_out"]
    return None if rows is None else rows["ndcg_at_10"]


def _finite(metrics: Mapping[str, Any]) -> Rule:
    figures = dict(_figures(metrics))
    bad = sorted(name for name, value in figures.items() if not math.isfinite(value))
    text = f"every figure is a finite number ({len(figures)} looked at)"
    if bad or not figures:
        text = f"every figure must be a finite number, found {', '.join(bad) or 'no figure at all'}"
    return Rule("finite", len(bad), 0, bool(figures) and not bad, text)


def _figures(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def _over_popularity(ndcg: float | None, baseline: float | None, limit: float) -> Rule:
    """Compare as a product, so that a popularity of 0 needs no division."""
    name = "over_popularity"
    if ndcg is None or baseline is None:
        return at_least(name, "NDCG@10 (leave-one-out) against popularity", None, limit)
    passed = math.isfinite(ndcg) and ndcg >= limit * baseline
    ratio = ndcg / baseline if baseline > 0 else None
    times = f"{ratio:.3g} times" if ratio is not None else f"{ndcg:.4f} against"
    text = f"NDCG@10 (leave-one-out) is {times} popularity's {baseline:.4f}, at least {limit:g} times asked"
    return Rule(name, ratio, limit, passed, text)
