"""``stillhouse gc``: what nothing reaches is freed, or named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stillhouse.cli.report import plain_console, plain_table
from stillhouse.cli.run import prepare_environment

if TYPE_CHECKING:
    from tasks.collection import Collection

__all__ = ["collect_garbage"]


def collect_garbage(
    workspace: Path, *, keep_nights: int, dry_run: bool, remote: bool | None, deleted: bool, as_json: bool
) -> None:
    """Free what nothing reaches in ``workspace`` and print it.

    Raises:
        NightError: a run or a backfill is at work, or it cannot be said what a kept night reaches.
        RegistryError: the ledger is not whole, or a record is gone or altered.
    """
    prepare_environment(workspace)
    from tasks.collection import collect
    from tasks.graph import hush
    from tasks.versions import require_workspace

    hush()
    require_workspace(workspace)
    found = collect(workspace, keep_nights, dry=dry_run, remote=remote, let_deleted_go=deleted)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    _show(found)


def _show(found: Collection) -> None:
    console = plain_console()
    title = "Would be freed (--dry-run)" if found.dry else "Freed"
    table = plain_table(title, ("", "left"), ("count", "right"), ("size", "right"), ("in", "left"))
    for one in found.freed:
        table.add_row(one.place, f"{one.count:,}", _size(one.bytes), one.where)
    console.print(table)
    for tag in found.tags:
        click.echo(f"tag          {tag}: opened, never closed, named by nothing")
    for note in found.notes:
        click.echo(note)
    nights = f"{found.nights:,} night{'s' * (found.nights != 1)}"
    click.echo(f"kept         {nights}, {found.objects:,} pieces of content")


def _size(count: int) -> str:
    """Return a number of bytes as a person reads it.

    >>> _size(2_300_000), _size(999)
    ('2.3 MB', '999 B')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
