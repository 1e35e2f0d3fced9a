"""Where tracking is: a database inside the workspace, or the server that the environment names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from stillhouse.errors import RegistryError
from stillhouse.params.base import redacted

__all__ = ["Tracking", "quiet_environment", "tracking_of"]

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")

#: What MLflow is told before it is imported, unless the environment says otherwise.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # or it copies a user's uv.lock into every model
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is away is asked for about a minute (1 + 2 + 4 + ... s); more would outlast its return.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Tracking:
    """One place that runs and models are kept in."""

    uri: str
    """MLflow's tracking and registry URI."""
    artifacts: str | None
    """Where files go; ``None``: the server decides."""
    embedded: bool
    """Whether it is the workspace's own database."""

    @property
    def shown(self) -> str:
        """The URI as a person may see it: no password."""
        parts = urlsplit(self.uri)
        try:
            place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        except ValueError:  # no port: a password with a slash in it stands there
            return redacted(self.uri)
        return redacted(urlunsplit(parts._replace(netloc=place)) if place and parts.password else self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file behind it, where there is one."""
        prefix = "sqlite:///"
        return Path(self.uri[len(prefix) :].partition("?")[0]) if self.uri.startswith(prefix) else None

    @property
    def ui(self) -> str:
        """What a person does to look at it: a command, or an address."""
        if self.uri.startswith("http"):
            return self.shown
        return f"mlflow ui --backend-store-uri {self.shown}"


def tracking_of(workspace: Path) -> Tracking:
    """Return where the workspace's runs and models are kept.

    ``MLFLOW_TRACKING_URI`` wins where it is set; otherwise it is SQLite at
    ``.stillhouse/mlflow.db`` with files below ``.stillhouse/artifacts``.
    Nothing is created or imported.

    Args:
        workspace: the folder of ``params.yaml``.

    Raises:
        RegistryError: the environment names a kind of store that MLflow cannot keep a registry in.
    """
    state = workspace.resolve() / ".stillhouse"
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return Tracking(f"sqlite:///{state / 'mlflow.db'}", str(state / "artifacts"), embedded=True)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in _SCHEMES:
        raise RegistryError(
            f"MLFLOW_TRACKING_URI must be http(s) or a database URL, got {redacted(uri)!r} (environment): "
            "unset it to keep runs in the workspace"
        )
    served = scheme in ("http", "https")
    return Tracking(uri.rstrip("/") if served else uri, None if served else str(state / "artifacts"), embedded=False)


def quiet_environment() -> None:
    """Tell MLflow, before it is imported, to call nobody and to copy nothing unasked."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
