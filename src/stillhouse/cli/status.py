"""``stillhouse status``: the last night, the champion, and what is stale."""

from __future__ import annotations

import json
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stillhouse.cli.age import parse_age, show_age

__all__ = ["show_status"]


def show_status(workspace: Path, *, max_age: str | None, as_json: bool) -> int:
    """Print how the workspace stands.

    Returns:
        1 where ``max_age`` is given and no night closed within it, otherwise 0.
    """
    limit = None if max_age is None else parse_age(max_age)
    from tasks.champion import awaiting_line, champion_line, repair
    from tasks.plan import standing
    from tasks.versions import require_workspace

    require_workspace(workspace)
    with chdir(workspace):  # DVC names stages relative to where one stands
        last = standing(workspace)
    registry = repair(workspace)
    age = datetime.now(UTC) - last.closed_at if last.closed_at else None
    late = limit is not None and (age is None or age > limit)
    facts: dict[str, Any] = {
        "last_closed": last.closed,
        "closed_at": last.closed_at.isoformat() if last.closed_at else None,
        "open": last.open,
        "champion": champion_line(workspace),
        "awaiting": registry.awaiting,
        "stale": list(last.stale),
        "late": late,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return int(late)
    closed = f"{last.closed} (closed {show_age(age)} ago)" if last.closed and age is not None else "none has closed yet"
    click.echo(f"last night   {closed}")
    if last.open:
        click.echo(f"open night   {last.open}: not closed; `stillhouse run` goes on with it")
    click.echo(facts["champion"])
    if registry.awaiting is not None:
        click.echo(awaiting_line(registry.awaiting))
    click.echo(f"stale        {', '.join(last.stale) if last.stale else 'nothing'}")
    if late:
        click.echo(
            f"stillhouse: a night must close every {max_age}, found none in that time: run `stillhouse run`", err=True
        )
    return int(late)
