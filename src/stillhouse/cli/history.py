"""``stillhouse history``: what was in production when, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.report import plain_console, plain_table

if TYPE_CHECKING:
    from tasks.history import History

__all__ = ["show_history"]

_AT = "%Y-%m-%d %H:%M:%S %Z"


def show_history(workspace: Path, *, at: str | None, limit: int | None, as_json: bool) -> None:
    """Print the ledger's entries and what they add up to.

    Raises:
        ParamsError: ``at`` is no time.
        RegistryError: the ledger is not whole.
    """
    from tasks.history import history
    from tasks.versions import require_workspace

    require_workspace(workspace)
    told = history(workspace, at)
    if as_json:
        click.echo(json.dumps(_facts(told, limit), indent=1))
        return
    shown = told.entries[-(limit or len(told.entries)) :]
    if shown:
        console = plain_console()
        columns = ("entry", "time", "what", "version", "student", "night", "by", "reason")
        sides = {"entry": "right", "version": "right", "reason": "text"}
        table = plain_table("", *((name, sides.get(name, "left")) for name in columns))
        for one in shown:
            entry = one.entry
            table.add_row(
                *(str(one.number), told.time(entry).strftime(_AT), entry.kind.replace("_", " "), str(entry.version)),
                *(entry.name, entry.night or "–", entry.actor, entry.reason),
            )
        console.print(table)
    when = "" if told.at is None else f" at {told.at.strftime(_AT)}"
    champion = told.champion
    if champion is None:
        click.echo(f"champion{when}: none")
        return
    since = told.time(champion).strftime(_AT)
    click.echo(
        f"champion{when}: student version {champion.version} ({champion.name}), since {since}, "
        f"{champion.kind.replace('_', ' ')} by {champion.actor}: {champion.reason}"
    )
    for name in ("previous", "challenger", "awaiting"):
        if (version := getattr(told.state, name)) is not None:
            click.echo(f"{name}: student version {version}")


def _facts(told: History, limit: int | None) -> dict[str, Any]:
    champion = told.champion
    return {
        "at": told.at.isoformat() if told.at else None,
        "champion": champion and champion.model_dump(mode="json"),
        "previous": told.state.previous,
        "challenger": told.state.challenger,
        "awaiting": told.state.awaiting,
        "entries": [
            {"number": one.number, "hash": one.hash} | one.entry.model_dump(mode="json")
            for one in told.entries[-(limit or len(told.entries)) :]
        ],
    }
