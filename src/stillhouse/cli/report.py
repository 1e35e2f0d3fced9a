"""The table that a night ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tasks.summary import Summary

__all__ = ["figure_or_dash", "plain_console", "plain_table", "print_summary"]

#: Columns of the table where it goes to a file or a pipe.
_FILE_WIDTH = 160

#: Stage (before ``@``) → the figure of its metrics that is shown, and what it counts.
_FIGURES = {
    "ingest": ("rows", "rows"),
    "validate": ("quarantined_rows", "rows quarantined"),
    "admit": ("accepted_rows", "rows accepted"),
    "prepare": ("training_rows", "training rows"),
    "train_teacher": ("valid_ndcg_at_10", "NDCG@10 valid"),
    "check_teacher": ("ndcg_at_10", "NDCG@10 valid"),
    "export_soft_targets": ("positions", "positions"),
    "train_student": ("valid_ndcg_at_10", "NDCG@10 valid"),
    "package": ("parity", "largest difference"),
    "evaluate": ("leave_one_out.ndcg_at_10", "NDCG@10 test"),
    "evaluate_champion": ("leave_one_out.ndcg_at_10", "NDCG@10 test"),
}


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that shows text as it is: what people write may hold brackets."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def print_summary(summary: Summary) -> None:
    """Print stages, models, the gate's verdict, the champion and where to look further."""
    console = plain_console()
    console.print(_stages(summary))
    console.print(_models(summary))
    console.print(_rules(summary))
    for line in summary.closing_lines:
        console.print(line)


def plain_table(title: str, *columns: tuple[str, str]) -> Table:
    """Return an empty table with those columns: name and side (``left``, ``right``, or ``text`` that may fold)."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=side != "text")
    return table


def _stages(summary: Summary) -> Table:
    table = plain_table(
        f"Night {summary.night.id}", ("stage", "left"), ("", "left"), ("seconds", "right"), ("key figure", "left")
    )
    for stage in summary.stages:
        figure = _figure(stage.name, summary.metrics.get(stage.name, {}))
        table.add_row(stage.name, "ran" if stage.ran else "reused", f"{stage.seconds:.1f}", figure)
    return table


def _figure(stage: str, metrics: Mapping[str, Any]) -> str:
    path, unit = _FIGURES.get(stage.partition("@")[0], ("", ""))
    value: Any = metrics
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else f"{_number(value)} {unit}"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def figure_or_dash(value: float | None) -> str:
    """Return a figure as the tables show it, a dash where there is none."""
    return "–" if value is None else _number(value)


def _models(summary: Summary) -> Table:
    table = plain_table(
        "Models (leave-one-out; tonight's time window)",
        ("model", "left"),
        ("NDCG@10", "right"),
        ("HR@10", "right"),
        ("window NDCG@10", "right"),
        ("bytes", "right"),
        ("median ms", "right"),
        ("p99 ms", "right"),
    )
    for model in summary.models:
        figures = (model.ndcg_at_10, model.hr_at_10, model.window_ndcg_at_10, model.bytes, model.p50_ms, model.p99_ms)
        table.add_row(model.label, *(figure_or_dash(figure) for figure in figures))
    return table


def _rules(summary: Summary) -> Table:
    table = plain_table(
        "Gate", ("student", "left"), ("rule", "left"), ("value", "right"), ("limit", "right"), ("verdict", "left")
    )
    for verdict in summary.decision.verdicts:
        for rule in verdict.rules:
            word = "pass" if rule.passed else "inconclusive" if rule.inconclusive else "FAIL"
            table.add_row(verdict.student, rule.name, figure_or_dash(rule.value), figure_or_dash(rule.limit), word)
    return table
