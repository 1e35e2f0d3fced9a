"""``stillhouse backfill``: past nights in a workspace of their own, then a table of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.age import parse_age
from stillhouse.cli.report import figure_or_dash, plain_console, plain_table

if TYPE_CHECKING:
    from tasks.backfill import Performed
    from tasks.backfill_told import Told

__all__ = ["run_backfill"]

_WORDS = {
    "before": "had closed before",
    "nothing": "nothing new",
    "stopped": "stopped",
}


def run_backfill(
    workspace: Path,
    *,
    first: str,
    last: str,
    every: str,
    source: str | None,
    name: str | None,
    keep_going: bool,
    as_json: bool,
) -> int:
    """Run past nights beside the live line and print how they went.

    Returns:
        0 where every night closed or had nothing new, otherwise the exit code of the first that was stopped.

    Raises:
        ParamsError: the times, the name or the source are impossible.
        NightError: a backfill of that name is at work.
    """
    from tasks.backfill import open_backfill, own_environment, perform
    from tasks.backfill_times import name_of, times

    kept = own_environment(os.environ)  # so that this process, too, looks nowhere but at the backfill's own tracking
    for variable in set(os.environ) - set(kept):
        del os.environ[variable]
    from stillhouse.cli.run import prepare_environment
    from stillhouse.params.document import load_document
    from tasks.backfill_told import told_of
    from tasks.graph import hush
    from tasks.versions import require_workspace

    require_workspace(workspace)
    timezone = load_document(workspace / "params.yaml")[0].night.timezone
    nights = times(first, last, parse_age(every, "--every"), timezone)
    with open_backfill(workspace, name or name_of(nights, timezone), source) as backfill:
        for note in backfill.notes:
            click.echo(note, err=True)
        done = list(
            perform(backfill, nights, lambda at: click.echo(f"{at.isoformat()} …", err=True), keep_going=keep_going)
        )
        prepare_environment(backfill.clone)
        hush()
        _show(backfill.clone, workspace, done, told_of(backfill.clone), len(nights), as_json=as_json)
    return next((one.code for one in done if one.code), 0)


def _show(
    clone: Path, workspace: Path, done: list[Performed], told: dict[Any, Told], asked: int, *, as_json: bool
) -> None:
    where = os.path.relpath(clone, Path.cwd()) if clone.is_relative_to(Path.cwd()) else str(clone)
    if as_json:
        rows = [
            {
                "as_of": one.as_of.isoformat(),
                "state": one.state,
                "seconds": one.seconds,
                **(told[one.as_of].facts() if one.as_of in told else {}),
            }
            for one in done
        ]
        click.echo(json.dumps({"workspace": str(clone), "asked": asked, "nights": rows}, indent=1))
        return
    columns = (("night", "left"), ("student", "left"), ("NDCG@10", "right"), ("verdict", "text"), ("seconds", "right"))
    table = plain_table(f"Backfill {clone.name}", *columns)
    for one in done:
        about = told.get(one.as_of)
        verdict = about.verdict if about else _WORDS.get(one.state, "")
        table.add_row(
            about.night if about else one.as_of.isoformat(),
            about.student if about else "–",
            figure_or_dash(about.ndcg_at_10 if about else None),
            f"{verdict} ({_WORDS['before']})" if about and one.state == "before" else verdict,
            "–" if one.seconds is None else f"{one.seconds:.0f}",
        )
    plain_console().print(table)
    if len(done) < asked:
        click.echo(f"{asked - len(done)} nights were not run: the same command goes on from the one that was stopped")
    click.echo(f"workspace    {where}")
    click.echo(f"next         stillhouse -C {where} history    stillhouse -C {where} compare VERSION VERSION")
