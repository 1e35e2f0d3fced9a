"""``stillhouse stack``: the servers and workers of one machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from stillhouse.cli.age import show_age
from stillhouse.cli.run import prepare_environment

__all__ = ["back_up_stack", "deploy_flows", "restore_stack", "show_stack", "start_stack", "stop_stack"]

_BACKUPS = Path(".stillhouse") / "backups"


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)


def start_stack(workspace: Path) -> None:
    """Bring the stack up and say where it is; no password is printed."""
    prepare_environment(workspace)
    from tasks.stack import bring_up
    from tasks.versions import require_workspace

    require_workspace(workspace)
    settings = bring_up(workspace, _say)
    accounts = settings.accounts
    click.echo(
        f"MLflow    {settings.mlflow_url}   account {accounts['mlflow']}\n"
        f"Prefect   {settings.prefect_url}   account {accounts['prefect']}\n"
        "passwords are in .stillhouse/stack/env; to work with the stack: . .stillhouse/stack/env"
    )


def deploy_flows(workspace: Path) -> None:
    """Tell the Prefect server in PREFECT_API_URL of pools, deployments and automations, and say what there is now."""
    prepare_environment(workspace)
    from stillhouse.errors import NightError

    if "PREFECT_API_URL" not in os.environ:
        raise NightError(
            "flows must be deployed to a server, found none in PREFECT_API_URL: . .stillhouse/stack/env, or set it"
        )
    from tasks.deploying import deploy

    for line in deploy(workspace):
        click.echo(line)


def stop_stack(workspace: Path) -> None:
    """Stop the stack; its state stays."""
    from tasks.stack import bring_down

    bring_down(workspace, click.echo)


def show_stack(workspace: Path) -> int:
    """Print how every program stands.

    Returns:
        1 unless all of them run, otherwise 0.
    """
    from tasks.stack import rows

    found = rows(workspace)
    for row in found:
        since = f"for {show_age(timedelta(seconds=row.seconds))}" if row.runs else ""
        pid = str(row.pid) if row.pid else ""
        click.echo(f"{row.name:<9} {row.state:<9} {pid:>8}  {since:<16} {row.where}".rstrip())
    return int(not all(row.runs for row in found))


def back_up_stack(workspace: Path, target: Path | None) -> None:
    """Write a backup and say what is in it."""
    from tasks.stack_backup import back_up

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    done = back_up(workspace, target or workspace / _BACKUPS / f"stack-{stamp}.tar", _say)
    click.echo(f"{done.path}: {done.files} files, {done.size / 1e6:.1f} MB; it holds secrets, keep it as safe as them")
    for line in done.left_out:
        click.echo(f"left out: {line}")


def restore_stack(workspace: Path, source: Path) -> None:
    """Restore a backup and say what was done, and what to do next."""
    from tasks.stack_restore import restore
    from tasks.versions import require_workspace

    require_workspace(workspace)
    done = restore(workspace, source, _say)
    click.echo(f"restored; DVC's remote got {done.remote_files} files, git {done.tags} tags of nights")
    if done.before is not None:
        click.echo(f"what was there before is in {done.before.relative_to(workspace)}")
    if done.other_tags:
        click.echo(f"these tags name something else here and were left: {', '.join(done.other_tags)}")
    if done.later_nights:
        click.echo(
            "nights that the backup does not know were laid aside (git for-each-ref refs/before-restore): "
            + ", ".join(done.later_nights)
        )
    click.echo("now: make stack")
