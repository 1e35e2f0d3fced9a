"""What a stack is told and what it keeps secret: made at the first start, the same after every later one."""

from __future__ import annotations

import secrets
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.errors import StackError
from tasks.policy import HEARTBEAT
from tasks.stack_layout import Layout, write_private

__all__ = ["DATABASES", "Settings", "keep", "read_env", "require_free_ports", "settings_for", "without_postgres"]

#: The databases, each owned by an account of its own name.
DATABASES = ("mlflow", "prefect")

#: Account names, which may be printed.
_MLFLOW_ACCOUNT = "admin"
_PREFECT_ACCOUNT = "stillhouse"

_MLFLOW_PORT = "STILLHOUSE_MLFLOW_PORT"
_PREFECT_PORT = "STILLHOUSE_PREFECT_PORT"
_DEFAULTS = {_MLFLOW_PORT: "5000", _PREFECT_PORT: "4200"}

#: A PostgreSQL of one's own.
_OWN = {
    "STILLHOUSE_PGHOST": "PGHOST",
    "STILLHOUSE_PGPORT": "PGPORT",
    "STILLHOUSE_PGUSER": "PGUSER",
    "STILLHOUSE_PGPASSWORD": "PGPASSWORD",
    "STILLHOUSE_PGSSLMODE": "PGSSLMODE",
}

#: Where alerts go, a secret; the workers are told.
ALERTS = "STILLHOUSE_ALERT_URLS"

#: What the environment may say at any start; said once, it is kept. Empty text takes it back.
_TOLD = (*_DEFAULTS, *_OWN, ALERTS)

_SECRETS = (
    "POSTGRES_PASSWORD",
    "MLFLOW_DATABASE_PASSWORD",
    "PREFECT_DATABASE_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "PREFECT_AUTH_PASSWORD",
)


@dataclass(frozen=True)
class Settings:
    """The ports, the database and the secrets of a stack."""

    kept: Mapping[str, str]
    """Name → value, as they stand in the file of secrets."""

    @property
    def mlflow_port(self) -> int:
        """Port of the tracking server."""
        return int(self.kept[_MLFLOW_PORT])

    @property
    def prefect_port(self) -> int:
        """Port of Prefect's server."""
        return int(self.kept[_PREFECT_PORT])

    @property
    def mlflow_url(self) -> str:
        """Address of the tracking server and its UI."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def prefect_url(self) -> str:
        """Address of Prefect's UI; its API is below."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def accounts(self) -> dict[str, str]:
        """Server → name of the account that was made for it."""
        return {"mlflow": _MLFLOW_ACCOUNT, "prefect": _PREFECT_ACCOUNT}

    @property
    def runs_postgres(self) -> bool:
        """Whether the stack brings its own PostgreSQL."""
        return "STILLHOUSE_PGHOST" not in self.kept

    @property
    def alerts(self) -> dict[str, str]:
        """Where alerts go, where anything was said about it."""
        return {ALERTS: self.kept[ALERTS]} if ALERTS in self.kept else {}

    @property
    def prefect_auth(self) -> str:
        """Account and password of Prefect's server, in its form."""
        return f"{_PREFECT_ACCOUNT}:{self.kept['PREFECT_AUTH_PASSWORD']}"

    def database(self, layout: Layout, name: str) -> dict[str, str]:
        """Return libpq's variables for one database.

        Args:
            layout: the stack's paths.
            name: one of `DATABASES`, or ``postgres``: the one that the others are made from.
        """
        if self.runs_postgres:
            secret = "POSTGRES_PASSWORD" if name == "postgres" else f"{name.upper()}_DATABASE_PASSWORD"
            found = {"PGHOST": str(layout.database_socket), "PGUSER": name, "PGPASSWORD": self.kept[secret]}
        else:
            found = {theirs: self.kept[ours] for ours, theirs in _OWN.items() if ours in self.kept}
        return {**found, "PGDATABASE": name}

    def client(self) -> dict[str, str]:
        """Return what somebody who works with the stack needs in the environment."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": _MLFLOW_ACCOUNT,
            "MLFLOW_TRACKING_PASSWORD": self.kept["MLFLOW_AUTH_ADMIN_PASSWORD"],
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": self.prefect_auth,
            **HEARTBEAT,
        }


def settings_for(layout: Layout, environ: Mapping[str, str]) -> Settings:
    """Return what the stack keeps, with what ``environ`` says now and new secrets for those that are missing.

    Nothing is written.

    Raises:
        StackError: a port is none, two are the same, or a PostgreSQL of one's own is named in part.
    """
    kept = {**_DEFAULTS, **(read_env(layout.secrets.read_text()) if layout.secrets.exists() else {})}
    for name in _TOLD:
        value = environ.get(name)
        if value:
            kept[name] = value
        elif value == "":
            kept.pop(name, None)
    kept = {**_DEFAULTS, **kept}
    for name in _SECRETS:
        kept.setdefault(name, secrets.token_urlsafe(32))
    for name in _DEFAULTS:
        if not (kept[name].isdecimal() and 0 < int(kept[name]) < 65536):
            raise StackError(f"{name} must be a port from 1 to 65535, got {kept[name]!r} (environment)")
    if kept[_MLFLOW_PORT] == kept[_PREFECT_PORT]:
        raise StackError(
            f"{_MLFLOW_PORT} and {_PREFECT_PORT} must differ, got {kept[_MLFLOW_PORT]} twice (environment)"
        )
    missing = [name for name in ("STILLHOUSE_PGUSER", "STILLHOUSE_PGPASSWORD") if name not in kept]
    if "STILLHOUSE_PGHOST" in kept and missing:
        raise StackError(f"STILLHOUSE_PGHOST must come with {' and '.join(missing)}, found none (environment)")
    return Settings(kept)


def keep(layout: Layout, settings: Settings) -> None:
    """Write the two files of settings; both hold passwords and are readable for this user alone."""
    write_private(layout.secrets, _as_shell("What the servers know. Keep it secret.", settings.kept))
    write_private(layout.client, _as_shell("Read it into a shell: . .stillhouse/stack/env", settings.client()))


def _as_shell(comment: str, values: Mapping[str, str]) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(values.items())]
    return "\n".join([f"# Made by `stillhouse stack up`. {comment}", *lines, ""])


def read_env(text: str) -> dict[str, str]:
    r"""Return the variables that a file of ``export NAME=VALUE`` lines sets.

    >>> read_env("# a comment\nexport A='x y'\nexport B=1\n")
    {'A': 'x y', 'B': '1'}
    """
    words = [word for word in shlex.split(text, comments=True) if word != "export"]
    return dict(word.split("=", 1) for word in words)


def without_postgres(kept: Mapping[str, str]) -> dict[str, str]:
    """Return what a stack keeps without a PostgreSQL of one's own."""
    return {name: value for name, value in kept.items() if name not in _OWN}


def require_free_ports(settings: Settings) -> None:
    """Refuse ports that somebody listens on already.

    Raises:
        StackError: one is in use.
    """
    for name, port in ((_MLFLOW_PORT, settings.mlflow_port), (_PREFECT_PORT, settings.prefect_port)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                raise StackError(
                    f"port {port} of 127.0.0.1 must be free, found it in use: name another in {name} (environment)"
                ) from None
