"""``stillhouse promote``, ``rollback``, ``approve`` and ``reject``: a person decides about the champion."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stillhouse.cli.run import prepare_environment

if TYPE_CHECKING:
    from tasks.promotion import Move

__all__ = ["approve_version", "promote_version", "reject_version", "roll_back"]


def promote_version(workspace: Path, name: str, *, reason: str, actor: str | None, override_gate: bool) -> None:
    """Make the version called ``name`` champion.

    Raises:
        RegistryError: it cannot be, for the reason given.
    """
    from tasks.naming import version_named
    from tasks.promotion import promotion

    def decide(who: str) -> Move | None:
        return promotion(workspace, version_named(workspace, name), reason, who, override_gate=override_gate)

    _perform(workspace, decide, actor)


def roll_back(workspace: Path, *, reason: str, actor: str | None) -> None:
    """Return to the champion before this one.

    Raises:
        RegistryError: there was none, or its files are not what the ledger names.
    """
    from tasks.promotion import rollback

    _perform(workspace, lambda who: rollback(workspace, reason, who), actor)


def approve_version(workspace: Path, name: str | None, *, reason: str, actor: str | None) -> None:
    """Promote the version that waits for a person.

    Raises:
        RegistryError: none waits, or it cannot be promoted any more.
    """
    from tasks.naming import version_named
    from tasks.promotion import approval

    def decide(who: str) -> Move:
        return approval(workspace, version_named(workspace, name) if name else None, reason, who)

    _perform(workspace, decide, actor)


def reject_version(workspace: Path, name: str | None, *, reason: str, actor: str | None) -> None:
    """Turn down the version that waits for a person.

    Raises:
        RegistryError: none waits.
    """
    from tasks.naming import version_named
    from tasks.promotion import rejection

    def decide(who: str) -> Move:
        return rejection(workspace, version_named(workspace, name) if name else None, reason, who)

    _perform(workspace, decide, actor)


def _perform(workspace: Path, decide: Callable[[str], Move | None], actor: str | None) -> None:
    prepare_environment(workspace)
    from tasks.champion import awaiting_line, champion_line, ledger_entries, repair
    from tasks.versions import require_workspace

    require_workspace(workspace)
    move = decide(actor or _somebody(workspace))
    if move is None:
        repair(workspace)
        click.echo("nothing to do: this version is champion already")
    else:
        from flows.promote import promote

        standing = promote(workspace, move)
        entry = next(one.entry for one in ledger_entries(workspace) if one.entry.key == move.key)
        click.echo(f"{move.label}, by {entry.actor}: {entry.reason}")
        if standing.previous is not None:
            click.echo(f"previous     student version {standing.previous}: stillhouse rollback returns to it")
        if standing.awaiting is not None:
            click.echo(awaiting_line(standing.awaiting))
    click.echo(champion_line(workspace))


def _somebody(workspace: Path) -> str:
    """Return who is at work: STILLHOUSE_ACTOR, or git's user, or the system's."""
    if named := os.environ.get("STILLHOUSE_ACTOR"):
        return named
    asked = subprocess.run(
        ["git", "config", "user.name"], cwd=workspace, capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        return asked or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have
        return f"uid {os.getuid()}"
