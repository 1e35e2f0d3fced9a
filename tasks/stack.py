"""The served setting on one machine: PostgreSQL, the tracking server, Prefect's server and a worker a pool.

``up`` starts each when what it needs answers: PostgreSQL, the two servers,
then the deployments, the workers last. All of it listens on 127.0.0.1 or on
sockets, and lies below ``.stillhouse/stack``; ``down`` leaves that as it is.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks import stack_postgres
from tasks.stack_control import Standing, Supervisor, sweep
from tasks.stack_layout import Layout, alone, layout_of
from tasks.stack_programs import POOLS, Program, inherited, programs_of, write_programs
from tasks.stack_restore import finish_restore
from tasks.stack_settings import Settings, keep, require_free_ports, settings_for

__all__ = ["Row", "bring_down", "bring_up", "rows"]

#: Seconds that a server, or the workers, may take to answer: the first start makes every table.
_PATIENCE = 180.0

#: Server → the path that anybody may ask whether it is well.
_HEALTH = {"mlflow": "/health", "prefect": "/api/health"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the stack's status."""

    name: str
    state: str
    """``running``, ``starting``, ``down``, ``silent`` where a server does not answer, or the supervisor's word."""
    runs: bool
    pid: int
    seconds: float
    where: str
    """Where it listens, or works."""


def bring_up(root: Path, say: Say) -> Settings:
    """Start whatever of the stack does not run, and deploy the flows.

    Args:
        root: the workspace.
        say: told each step, one line.

    Raises:
        StackError: a port is taken, a program gives up, or another command is at work on the stack.
    """
    layout = layout_of(root)
    with alone(layout):
        finish_restore(layout)
        supervisor = Supervisor(layout)
        was_up = supervisor.answers()
        if not was_up and (ended := sweep(layout)):
            say(f"ended what a killed supervisor had left: {', '.join(ended)}")
        layout.prepare()
        settings = settings_for(layout, os.environ)
        if was_up:
            settings = _as_it_runs(layout, settings, say)
        else:
            require_free_ports(settings)
            keep(layout, settings)
        programs = _programs(layout, settings)
        if not was_up:
            if settings.runs_postgres:
                stack_postgres.initialise(layout, settings)
            write_programs(layout, programs)
            supervisor.spawn(inherited(os.environ, layout))
        _start(layout, settings, supervisor, programs, say)
    return settings


def _as_it_runs(layout: Layout, settings: Settings, say: Say) -> Settings:
    """Return the settings that the running stack was started with."""
    running = settings_for(layout, {})
    changed = [name for name in {**settings.kept, **running.kept} if settings.kept.get(name) != running.kept.get(name)]
    say(
        "already up" + (f"; to take the new {', '.join(changed)}: `make stack-down`, then `make stack`" * bool(changed))
    )
    return running


def _programs(layout: Layout, settings: Settings) -> list[Program]:
    binary = stack_postgres.postgres_binary(layout) if settings.runs_postgres else None
    return programs_of(layout, settings, binary, stack_postgres.run_user())


def _start(layout: Layout, settings: Settings, supervisor: Supervisor, programs: Sequence[Program], say: Say) -> None:
    """Start the programs in their order, each group when the one before answers."""
    groups = {group: [one for one in programs if one.group == group] for group in ("database", "servers", "workers")}
    if settings.runs_postgres:
        say("PostgreSQL")
        _bring(supervisor, groups["database"])
        variables = settings.database(layout, "prefect")
        supervisor.wait_for(
            groups["database"], lambda: stack_postgres.ready(variables), "PostgreSQL must answer", _PATIENCE
        )
    else:
        stack_postgres.require_databases(layout, settings)
    mlflow, prefect = groups["servers"]
    say("MLflow and Prefect")
    _bring(supervisor, [mlflow])  # makes its tables while Prefect's are made
    stack_postgres.prepare_prefect(layout, settings)
    _bring(supervisor, [prefect])
    for program, address in ((mlflow, settings.mlflow_url), (prefect, settings.prefect_url)):
        url = address + _HEALTH[program.name]
        supervisor.wait_for([program], lambda url=url: _answers(url), f"{url} must answer", _PATIENCE)  # type: ignore[misc]
    say("deployments")
    os.environ.update(settings.client())
    from tasks.deploying import deploy

    for line in deploy(layout.root):
        say(line)
    say("workers")
    _make_clones(layout)
    since = datetime.now(UTC)
    fresh = _bring(supervisor, groups["workers"])
    supervisor.wait_for(
        groups["workers"],
        lambda: all(_heard(settings, program.name, since) for program in fresh),
        "a worker must report to its pool",
        _PATIENCE,
    )


def _bring(supervisor: Supervisor, programs: Sequence[Program]) -> list[Program]:
    """Start those of ``programs`` that do not run, and return them."""
    found = supervisor.standings()
    fresh = [program for program in programs if program.name not in found or not found[program.name].runs]
    for program in fresh:
        supervisor.start(program)
    return fresh


def _make_clones(layout: Layout) -> None:
    from tasks.clones import make_clone
    from tasks.graph import repository

    for pool in POOLS[1:]:
        make_clone(layout.root, layout.workers / pool)
    with repository(layout.root) as repo:
        remote = repo.config["core"].get("remote")
        address = str(repo.config["remote"][remote]["url"]) if remote else ""
    if address.startswith("/"):
        Path(address).mkdir(parents=True, exist_ok=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # an address of ours
            return True
    except OSError:
        return False


def _heard(settings: Settings, pool: str, since: datetime) -> bool:
    """Say whether a worker of the pool has reported since then."""
    token = base64.b64encode(settings.prefect_auth.encode()).decode()
    request = urllib.request.Request(  # noqa: S310  # an address of ours
        f"{settings.prefect_url}/api/work_pools/{pool}/workers/filter",
        data=b"{}",
        headers={"Content-Type": "application/json", "Authorization": f"Basic {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            workers = json.load(answer)
    except OSError:
        return False
    times = [datetime.fromisoformat(one["last_heartbeat_time"]) for one in workers if one.get("last_heartbeat_time")]
    return any(heard >= since for heard in times)


def bring_down(root: Path, say: Say) -> None:
    """Stop everything and wait until it has stopped; what a killed supervisor left is ended too.

    Raises:
        StackError: it does not stop, or another command is at work on the stack.
    """
    layout = layout_of(root)
    with alone(layout):
        stop(layout, say)


def stop(layout: Layout, say: Say) -> None:
    """Stop everything; for callers that have the stack alone."""
    supervisor = Supervisor(layout)
    was_up = supervisor.answers()
    if was_up:
        supervisor.stop()
    ended = sweep(layout)  # the stages of a night that was at work, or what a killed supervisor left
    if ended and not was_up:
        say(f"ended what a killed supervisor had left: {', '.join(ended)}")
    layout.remove_sockets()
    for trace in (layout.control, layout.pid):  # of a supervisor that was killed
        trace.unlink(missing_ok=True)
    say("the stack is down" if was_up or ended else "the stack was down already")


def rows(root: Path) -> list[Row]:
    """Return how every program stands, in the order of their start."""
    layout = layout_of(root)
    settings = settings_for(layout, {})
    found = Supervisor(layout).standings()
    where = {"mlflow": settings.mlflow_url, "prefect": settings.prefect_url, "postgres": "a socket"}
    names = [*(["postgres"] if settings.runs_postgres else []), "mlflow", "prefect", *POOLS]
    return [_row(name, found.get(name), where.get(name, "")) for name in names]


def _row(name: str, found: Standing | None, where: str) -> Row:
    state = "down" if found is None or found.state == "STOPPED" else found.state.lower()
    runs = found is not None and found.runs
    if runs and name in _HEALTH and not _answers(where + _HEALTH[name]):
        state, runs = "silent", False
    return Row(name, state, runs, found.pid if found and runs else 0, found.seconds if found and runs else 0.0, where)
