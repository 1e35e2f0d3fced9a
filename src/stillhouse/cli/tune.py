"""``stillhouse tune``: search a student's settings, then a table and a patch to accept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from stillhouse.cli.age import parse_age

if TYPE_CHECKING:
    from stillhouse.tuning.search import Result
    from stillhouse.tuning.study import Trial

__all__ = ["tune_student"]

#: Trials that the table shows beside the one that stands.
_SHOWN = 10
#: Columns of the table where it goes to a file or a pipe.
_FILE_WIDTH = 160


def tune_student(
    workspace: Path,
    student: str,
    *,
    trials: int | None,
    timeout: str | None,
    epochs: int | None,
    seed: int | None,
    warm: bool,
) -> None:
    """Search the settings of ``student`` and print what was found.

    Raises:
        StillhouseError: there is no such student, no night has prepared what it takes, or another search is at work.
    """
    seconds = None if timeout is None else parse_age(timeout, "--timeout").total_seconds()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the runner sets it, before torch is loaded
    from stillhouse.tuning.search import Request, search

    result = search(Request(workspace, student, trials, timeout=seconds, epochs=epochs, seed=seed, warm=warm))
    _print(workspace, student, result)


def _print(workspace: Path, student: str, result: Result) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(_table(student, result))
    for line in _closing_lines(workspace, student, result):
        console.print(line, markup=False)


def _table(student: str, result: Result) -> Table:
    title = f"{student}: {len(result.trials)} trials, the best on the validation split"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "NDCG@10 valid", "against what stands", "epochs", "seconds", *result.settings):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ranked = sorted(result.trials, key=lambda trial: (-(trial.ndcg_at_10 or 0.0), trial.number))
    best = [trial for trial in ranked if trial.end == "complete"][:_SHOWN]
    for trial in [*best, *([] if result.stands in best else [result.stands])]:
        _add(table, trial, result)
    return table


def _add(table: Table, trial: Trial, result: Result) -> None:
    figure, stands = trial.ndcg_at_10 or 0.0, result.stands.ndcg_at_10 or 0.0
    gain = f"{figure / stands - 1.0:+.1%}" if stands else "–"
    values = [f"{trial.values[name]:g}" for name in result.settings]
    words = "what stands" if trial.stands else ""
    cost = (str(trial.epochs), f"{trial.seconds:.1f}")
    table.add_row(str(trial.number), f"{figure:.4f}", "" if trial.stands else gain, *cost, *values, words)


def _closing_lines(workspace: Path, student: str, result: Result) -> list[str]:
    ends = [trial.end for trial in result.trials]
    count = f"trials       {ends.count('complete')} complete, {ends.count('pruned')} pruned"
    lines = [count + (f", {ends.count('diverged')} diverged" if "diverged" in ends else "")]
    if result.importances:
        lines.append("importance   " + ", ".join(f"{name} {share:.2f}" for name, share in result.importances.items()))
    if result.plot:
        lines.append(f"plot         {result.plot.relative_to(workspace)}")
    if result.patch is None:
        return [*lines, f"patch        none: {result.by_hand or 'what stands is the best that was found'}"]
    patch = result.patch.relative_to(workspace)
    return [
        *lines,
        f"patch        {patch}: `git apply {patch}` accepts it; `stillhouse run --force` then trains {student} anew",
    ]
