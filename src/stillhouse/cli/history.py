"""``stillhouse history``: what was in production when, and why; and which teachers there were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.report import figure_or_dash, plain_console, plain_table

if TYPE_CHECKING:
    from tasks.history import History, Taught, TeacherHistory

__all__ = ["show_history", "show_teachers"]

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


def show_teachers(workspace: Path, *, at: str | None, limit: int | None, as_json: bool) -> None:
    """Print the registered teachers: how good each was, what it started from, and whom it taught.

    Raises:
        ParamsError: ``at`` is no time.
        RegistryError: the ledger is not whole.
    """
    from tasks.history import teacher_history
    from tasks.versions import require_workspace

    require_workspace(workspace)
    told = teacher_history(workspace, at)
    shown = told.teachers[-(limit or len(told.teachers)) :]
    if as_json:
        click.echo(json.dumps(_teacher_facts(told, shown), indent=1))
        return
    if not shown:
        when = "" if told.at is None else f" at {told.at.strftime(_AT)}"
        click.echo(f"teachers{when}: none is registered; the next night registers its own")
        return
    sides = {"version": "right", "NDCG@10": "right", "window NDCG@10": "right", "students taught": "text"}
    columns = ("version", "night", "registered", "NDCG@10", "window NDCG@10", "started from", "students taught")
    table = plain_table("", *((name, sides.get(name, "left")) for name in columns))
    for one in shown:
        entry = one.registered.entry
        table.add_row(
            *(str(entry.version), entry.night or "–"),
            datetime.fromisoformat(entry.time).astimezone(told.zone).strftime(_AT),
            *(figure_or_dash(one.figures[protocol]) for protocol in ("leave_one_out", "time_window")),
            *(_started(one), ", ".join(str(version) for version in one.students) or "–"),
        )
    plain_console().print(table)


def _started(one: Taught) -> str:
    if one.before is not None:
        return f"version {one.before}"
    return f"night {one.before_night}" if one.before_night else one.start or "–"


def _teacher_facts(told: TeacherHistory, shown: Sequence[Taught]) -> dict[str, Any]:
    return {
        "at": told.at.isoformat() if told.at else None,
        "teachers": [
            {
                "version": one.registered.entry.version,
                "night": one.registered.entry.night,
                "ndcg_at_10": dict(one.figures),
                "start": one.start,
                "from": one.before,
                "from_night": one.before_night,
                "students": list(one.students),
                "md5": one.md5,
                "number": one.registered.number,
                "hash": one.registered.hash,
                "entry": one.registered.entry.model_dump(mode="json"),
            }
            for one in shown
        ],
    }
