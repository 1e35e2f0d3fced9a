"""The programs of a stack, and the supervisor's configuration that keeps them running.

Secrets stand in one script a program, readable for this user alone, and reach it
by its environment: neither the configuration nor a process list shows any.
"""

from __future__ import annotations

import configparser
import io
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.policy import ON_POOLS
from tasks.search_paths import code_of, programs
from tasks.stack_layout import MARK, Layout, write_private
from tasks.stack_leftovers import PROGRAM
from tasks.stack_settings import Settings

__all__ = ["POLLING", "POOLS", "Program", "config_text", "inherited", "programs_of", "script_text", "write_programs"]

#: The work pools, each with a worker of its own.
POOLS = ("night", "cpu", "gpu")

#: Group → its place in the order of stopping: the last one stops first.
_GROUPS = {"database": 1, "servers": 2, "workers": 3}

#: How often a worker asks for work, in seconds. Asked by three workers every second, a server with nothing else to do
#: took .135 of a core; every three, .066, and with nobody asking .03 (its processor time over a minute, on SQLite, 2
#: cores of an AMD EPYC). A night of one student waits for it four times.
POLLING = {"PREFECT_WORKER_QUERY_SECONDS": "3"}

#: What a server inherits; workers inherit everything, for a night may need a source's or a remote's credentials.
_BASIC = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "TMPDIR", "TZ", "USER")

#: What no program inherits: what other servers, and the shell that started the stack, were told.
_FOREIGN = ("PREFECT_", "MLFLOW_", "PG", "PYTEST", "SUPERVISOR_", "GIT_", "STILLHOUSE_PG", "STILLHOUSE_RUN_TOKEN")

_QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_CLI_COLORS": "false"}


@dataclass(frozen=True)
class Program:
    """One program that the supervisor keeps."""

    name: str
    group: str
    """One of ``database``, ``servers``, ``workers``."""
    command: Sequence[str]
    """What is run; no secret, for everybody may read it in a process list."""
    place: Path
    """The folder that it works in."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it is told, secrets included; it stands in its script."""
    umask: int = 0o077
    """Of the files that it makes."""
    signal: str = "TERM"
    """What asks it to stop."""
    patience: int = 20
    """Seconds that it may take to stop before it is killed."""
    user: str | None = None
    """Whom it runs as; ``None``: as the supervisor."""

    @property
    def id(self) -> str:
        """Its name to the supervisor."""
        return f"{self.group}:{self.name}"


def programs_of(layout: Layout, settings: Settings, postgres: Path | None, user: str | None) -> list[Program]:
    """Return the stack's programs in the order of their start.

    Args:
        layout: the stack's paths.
        settings: its settings.
        postgres: the server's binary; ``None``: a PostgreSQL of one's own is used.
        user: whom PostgreSQL runs as, where this user may not run it.
    """
    found = [] if postgres is None else [_postgres(layout, postgres, user)]
    return [*found, _mlflow(layout, settings), _prefect(layout, settings), *_workers(layout, settings)]


def _bin() -> Path:
    return Path(sys.executable).parent


def _postgres(layout: Layout, binary: Path, user: str | None) -> Program:
    command = [binary, "-D", layout.database, "-k", layout.database_socket, "-c", "listen_addresses="]
    # INT is PostgreSQL's fast stop: TERM would wait for every client to leave.
    return Program(
        "postgres", "database", [str(word) for word in command], layout.database, signal="INT", patience=60, user=user
    )


def _mlflow(layout: Layout, settings: Settings) -> Program:
    names = ("MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD")
    environment = {
        **settings.database(layout, "mlflow"),
        **{name: settings.kept[name] for name in names},
        "STILLHOUSE_ARTIFACTS": str(layout.artifacts),
        "STILLHOUSE_HOST": "127.0.0.1",
        "STILLHOUSE_PORT": str(settings.mlflow_port),
    }
    return Program(
        "mlflow", "servers", ["/bin/sh", str(layout.root / "mlflow" / "serve.sh")], layout.artifacts, environment
    )


def _prefect(layout: Layout, settings: Settings) -> Program:
    port = str(settings.prefect_port)
    command = [str(_bin() / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", port]
    return Program("prefect", "servers", command, layout.prefect, prefect_environment(layout, settings))


def prefect_environment(layout: Layout, settings: Settings) -> dict[str, str]:
    """Return what Prefect's server is told; where its database is, libpq's variables say."""
    return {
        **_QUIET,
        **settings.database(layout, "prefect"),
        "PREFECT_HOME": str(layout.prefect),
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg:///",
        "PREFECT_SERVER_API_AUTH_STRING": settings.prefect_auth,
        "PREFECT_API_AUTH_STRING": settings.prefect_auth,  # its own services are clients too
    }


def _workers(layout: Layout, settings: Settings) -> list[Program]:
    old = os.umask(0)
    os.umask(old)
    found = []
    for pool in POOLS:
        # The night's own flow works in the workspace, which alone holds dvc.lock; stages in clones.
        place = layout.root if pool == "night" else layout.workers / pool
        environment = {
            **_QUIET,
            **settings.client(),
            **settings.alerts,
            "PREFECT_HOME": str(layout.prefect),
            **POLLING,
            "STILLHOUSE_WORKSPACE": str(place),
            "PYTHONPATH": code_of(place),
            **({ON_POOLS: "1"} if pool == "night" else {}),
        }
        start = [str(_bin() / "prefect"), "worker", "start"]
        command = [*start, "--pool", pool, "--type", "process", "--name", f"{pool}-1", "--install-policy", "never"]
        found.append(Program(pool, "workers", command, place, environment, umask=old))
    return found


def inherited(environ: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """Return the supervisor's own environment: the caller's without what it was told about other servers, and the mark.

    >>> from tasks.stack_layout import Layout
    >>> inherited({"HOME": "/h", "PGHOST": "other", "PYTHONPATH": "x"}, Layout(Path("/w"), Path("/w/stack")))
    {'HOME': '/h', 'STILLHOUSE_STACK': '/w/stack'}
    """
    kept = {key: value for key, value in environ.items() if not key.startswith(_FOREIGN) and key != "PYTHONPATH"}
    return {**kept, MARK: str(layout.stack)}


def script_text(program: Program) -> str:
    """Return the script that tells a program its environment and becomes it."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(program.environment.items())]
    if program.group == "servers":  # a worker's flow, in contrast, goes on when its worker is killed
        cleaning = [sys.executable, str(Path(__file__).with_name("stack_leftovers.py")), MARK, PROGRAM]
        lines += [f"export {PROGRAM}={program.name}", shlex.join(cleaning)]
    return "\n".join(
        [
            "# Made by `stillhouse stack up`; holds secrets.",
            f"umask {program.umask:04o}",
            *lines,
            f"cd {shlex.quote(str(program.place))} || exit 1",
            f"exec {shlex.join(program.command)}",
            "",
        ]
    )


def config_text(layout: Layout, programs: Sequence[Program]) -> str:
    """Return the supervisor's configuration."""
    parser = configparser.RawConfigParser()
    root = {"user": "root"} if os.geteuid() == 0 else {}
    sections: dict[str, dict[str, object]] = {
        "unix_http_server": {"file": layout.control, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisord": {
            **root,
            "identifier": "stillhouse",
            "directory": layout.stack,
            "pidfile": layout.pid,
            "logfile": layout.logs / "supervisord.log",
            "logfile_maxbytes": "10MB",
            "logfile_backups": 3,
            "childlogdir": layout.logs,
            "umask": "077",
            "nocleanup": "true",
        },
    }
    for program in programs:
        sections[f"program:{program.name}"] = _section(layout, program)
    for group, order in _GROUPS.items():
        members = [program.name for program in programs if program.group == group]
        if members:
            sections[f"group:{group}"] = {"programs": ",".join(members), "priority": order}
    for section, values in sections.items():
        # The supervisor replaces %(NAME)s in every value.
        parser[section] = {key: str(value).replace("%", "%%") for key, value in values.items()}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _section(layout: Layout, program: Program) -> dict[str, object]:
    start = program.command if program.user else ["/bin/sh", str(layout.programs / f"{program.name}.sh")]
    if program.group != "workers":
        known = {name: os.environ[name] for name in _BASIC if name in os.environ}
        given = {**known, "PATH": programs(), MARK: str(layout.stack)}
        start = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in given.items()), *start]
    return {
        "command": shlex.join(start),
        "autostart": "false",  # `up` starts each when what it needs answers
        "autorestart": "true",
        "startsecs": 2,
        "startretries": 30,  # a worker may have to wait for its server to come back
        "stopsignal": program.signal,
        "stopwaitsecs": program.patience,
        # PostgreSQL tells its own children; a worker's flow is in its group.
        "stopasgroup": str(program.group != "database").lower(),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": layout.logs / f"{program.name}.log",
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 3,
        **({"user": program.user} if program.user else {}),
    }


def write_programs(layout: Layout, programs: Sequence[Program]) -> None:
    """Write the configuration and the scripts."""
    for program in programs:
        write_private(layout.programs / f"{program.name}.sh", script_text(program))
    write_private(layout.config, config_text(layout, programs))
