"""The connection to MLflow: made late, once a process and place, never by pointing MLflow's globals anywhere."""

from __future__ import annotations

import logging
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from stillhouse.errors import RegistryError, one_line
from stillhouse.tracking.settings import Tracking, quiet_environment, tracking_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["EXPERIMENT", "Store", "connect"]

#: The experiment that holds every night.
EXPERIMENT = "nightly"

#: Seconds that a server may take to answer.
_ANSWER_WITHIN = 10.0

_open: dict[Tracking, Store] = {}
_opening = threading.Lock()


class Store:
    """An open connection: MLflow's client and the id of the experiment."""

    def __init__(self, tracking: Tracking, client: MlflowClient, experiment_id: str) -> None:
        self.tracking = tracking
        self.client = client
        self.experiment_id = experiment_id


def connect(workspace: Path) -> Store:
    """Return the connection of the workspace's tracking, made at the first call.

    A fresh database is made under a lock and moved into place whole, because
    several processes that first touch one at the same time break it.

    Raises:
        RegistryError: the server does not answer or refuses, or the database is of another version.
    """
    tracking = tracking_of(workspace)
    with _opening:
        if tracking not in _open:
            _open[tracking] = _connect(tracking)
        return _open[tracking]


def _connect(tracking: Tracking) -> Store:
    quiet_environment()
    if tracking.uri.startswith("http"):
        _must_answer(tracking)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        if tracking.database is not None:
            _initialise(tracking, tracking.database)
        client = mlflow.MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
        return Store(tracking, client, _experiment(client, tracking))
    except (MlflowException, CommandError, SQLAlchemyError) as error:
        raise RegistryError(
            one_line(f"the tracking store must let Stillhouse in, got: {error} (at {tracking.shown})")
        ) from error


def _initialise(tracking: Tracking, database: Path) -> None:
    """Make the database where there is none: built beside, then moved, so that a kill leaves nothing half-made."""
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(database) + ".lock"):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        fresh = database.with_name(f"{database.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        try:
            SqlAlchemyStore(f"sqlite:///{fresh}", str(tracking.artifacts)).engine.dispose()  # type: ignore[no-untyped-call]
            fresh.replace(database)
        finally:
            fresh.unlink(missing_ok=True)


def _experiment(client: MlflowClient, tracking: Tracking) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=tracking.artifacts))
        except MlflowException as error:  # another process made it in between
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise error from None
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"the experiment {EXPERIMENT} must be active, found it deleted (at {tracking.shown}): "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _must_answer(tracking: Tracking) -> None:
    """Ask the server for its health before MLflow does, whose own patience is minutes."""
    until = time.monotonic() + _ANSWER_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"{tracking.shown}/health", timeout=_ANSWER_WITHIN):  # noqa: S310
                return
        except urllib.error.HTTPError:
            return  # it answers; whether it lets us in, the first call will say
        except OSError as error:
            if time.monotonic() > until:
                raise RegistryError(
                    one_line(f"the tracking server must answer, got {error} (MLFLOW_TRACKING_URI: {tracking.shown})")
                ) from None
            time.sleep(0.5)
