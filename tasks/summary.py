"""What a night has to say at its end, gathered from its outputs; the command line prints it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json
from stillhouse.lineage.projection import State
from stillhouse.params.base import redacted
from stillhouse.tracking.settings import tracking_of
from tasks.champion import awaiting_line, champion_line
from tasks.gate import Decision
from tasks.night import Night

__all__ = ["ModelRow", "StageReport", "Summary", "summarise"]


@dataclass(frozen=True)
class StageReport:
    """How one stage went."""

    name: str
    ran: bool
    """``False``: its outputs were reused."""
    seconds: float


@dataclass(frozen=True)
class ModelRow:
    """One model of the night; a figure that was not measured is ``None``."""

    label: str
    ndcg_at_10: float | None
    """Leave-one-out."""
    hr_at_10: float | None
    window_ndcg_at_10: float | None
    """Tonight's time window."""
    bytes: int | None
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Summary:
    """One night, told."""

    night: Night
    stages: Sequence[StageReport]
    metrics: Mapping[str, Mapping[str, Any]]
    """Stage → what it returned."""
    models: Sequence[ModelRow]
    decision: Decision
    versions: Mapping[str, int]
    closing_lines: Sequence[str]
    """The verdict in words, the champion, and where to look further."""


def summarise(
    root: Path,
    night: Night,
    stages: Sequence[StageReport],
    decision: Decision,
    versions: Mapping[str, int],
    standing: State,
) -> Summary:
    """Gather the night's summary from the workspace."""
    metrics = {stage.name: _read(root / "metrics" / f"{stage.name.replace('@', '/')}.json") for stage in stages}
    names = [verdict.student for verdict in decision.verdicts]
    models = [
        _row("teacher", metrics.get("check_teacher", {}), _read(root / "timings" / "teacher.json")),
        _row(
            f"champion (version {night.champion})" if night.champion else "champion (none yet)",
            metrics.get("evaluate_champion", {}),
            _read(root / "timings" / "_champion.json"),
        ),
        *(
            _row(name, metrics[f"evaluate@{name}"], _read(root / "timings" / f"{name}.json"))
            for name in reversed(names)
        ),
    ]
    return Summary(night, stages, metrics, models, decision, versions, _closing(root, decision, versions, standing))


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _row(label: str, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> ModelRow:
    held_out, window = metrics.get("leave_one_out") or {}, metrics.get("time_window") or {}
    return ModelRow(
        label,
        held_out.get("ndcg_at_10"),
        held_out.get("hr_at_10"),
        window.get("ndcg_at_10"),
        metrics.get("bytes"),
        timings.get("p50_ms"),
        timings.get("p99_ms"),
    )


def _closing(root: Path, decision: Decision, versions: Mapping[str, int], standing: State) -> list[str]:
    lines = []
    for verdict in reversed(decision.verdicts):
        word = "passed" if verdict.passed else "refused"
        if verdict.student == decision.chosen:
            now = {standing.champion: "promoted", standing.awaiting: "awaits approval"}
            word = now.get(versions[verdict.student], "passed, and another decision stands since")
        lines.append(f"{verdict.student} (version {versions[verdict.student]}) {word}: {verdict.reason}")
    lines.append(champion_line(root))
    if standing.awaiting is not None:
        lines.append(awaiting_line(standing.awaiting))
    if standing.challenger is not None:
        lines.append(f"challenger   student version {standing.challenger}")
    lines += [
        "",
        "data         reports/data_docs/index.html, quarantine in data/quarantine",
        f"MLflow UI    {tracking_of(root).ui}",
        f"Prefect UI   {_prefect_ui()}",
        "next         stillhouse recommend --user ID    stillhouse status",
    ]
    return lines


def _prefect_ui() -> str:
    """Return where a person looks at the night: the server that it ran on, or a command where it had its own."""
    served = os.environ.get("PREFECT_API_URL")
    return redacted(served).removesuffix("/api") if served else "PREFECT_HOME=.stillhouse/prefect prefect server start"
