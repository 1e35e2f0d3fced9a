"""``stillhouse run``: one night, then a table of what happened."""

from __future__ import annotations

import os
from pathlib import Path

import click

__all__ = ["prepare_environment", "run_night"]

#: What the tools are told before they are imported; the environment wins where it says something itself.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
}


def run_night(
    workspace: Path, *, source: str | None, as_of: str | None, force: bool, cold: bool, verbose: bool
) -> None:
    """Run one night in ``workspace`` and print how it went.

    Raises:
        StillhouseError: the night was stopped, for the reason given.
    """
    os.chdir(workspace)
    prepare_environment(workspace, verbose=verbose)
    from tasks.graph import hush
    from tasks.mending import mend
    from tasks.plan import Request, plan_night
    from tasks.versions import require_workspace
    from tasks.workspace import exclusive

    if not verbose:
        hush()
    require_workspace(workspace)
    with exclusive(workspace):
        for name in mend(workspace):
            click.echo(
                f"{name} was left half written by a run that was killed: its last whole copy stands again", err=True
            )
        request = Request(workspace, source=source, as_of=as_of, force=force, cold=cold)
        plan = plan_night(request)
        if plan.action == "nothing":
            _say_nothing_to_do(workspace, plan.night.id, plan.notes)
            return
        click.echo(f"night {plan.night.id}: {_INTENT[plan.action]}", err=True)
        for note in plan.notes:
            click.echo(note, err=True)
        from flows.nightly import nightly

        summary = nightly(request, plan)
    from stillhouse.cli.report import print_summary

    print_summary(summary)


_INTENT = {
    "open": "opened",
    "resume": "goes on where it stopped",
    "repeat": "has closed already; performed once more",
}


def prepare_environment(workspace: Path, *, verbose: bool = False) -> None:
    """Tell the tools, before they are imported, to be quiet and to keep to ``workspace``."""
    from tasks.policy import HEARTBEAT

    for name, value in {**_QUIET, **HEARTBEAT}.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(workspace / ".stillhouse" / "prefect"))
        # A night's own server lives for its minutes: it need not know the blocks of every installed collection.
        os.environ.setdefault("PREFECT_SERVER_REGISTER_BLOCKS_ON_START", "false")
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


def _say_nothing_to_do(workspace: Path, night: str, notes: tuple[str, ...]) -> None:
    from tasks.champion import champion_line, repair

    repair(workspace)
    click.echo(f"nothing to do: the source holds nothing new since night {night} closed")
    for note in notes:
        click.echo(note)
    click.echo(champion_line(workspace))
