"""Runs: one parent a night, one child a stage; everything is written in batches."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import RegistryError, one_line
from stillhouse.tracking.store import Store, connect

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from stillhouse.runner.outbox import Message

__all__ = [
    "StageRun",
    "deliver",
    "drop_stage_run",
    "finish_night_run",
    "flatten",
    "log_dict",
    "log_files",
    "log_model_metrics",
    "open_night_run",
    "open_stage_run",
    "quoted",
    "read_file",
    "safe_name",
    "search_run",
    "stage_run",
    "tag_reused",
    "trial_run",
]

_NIGHT, _KIND, _STAGE, _ERROR = "night", "kind", "stage", "error"
_SEARCH, _STUDENT = "search", "student"
_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"
_METRICS_A_CALL, _PARAMS_A_CALL, _LONGEST = 1000, 100, 5000
_UNSAFE = re.compile(r"[^\w\-. /]", re.ASCII)


def safe_name(name: str) -> str:
    """Return ``name`` as MLflow takes it for a metric, a param or a tag's key.

    What it does not take becomes its number, so that two names stay two.

    >>> safe_name("stage.train_student@gru.run_id"), safe_name("add+"), safe_name("add-")
    ('stage.train_student.gru.run_id', 'add_2b_', 'add-')
    """
    return _UNSAFE.sub(lambda found: f"_{ord(found[0]):x}_", name.replace("@", "."))


def quoted(value: str) -> str:
    """Return ``value`` as a literal of MLflow's search language.

    Raises:
        RegistryError: it holds a quote, which that language cannot escape.

    >>> quoted("2026-01-01")
    "'2026-01-01'"
    """
    if "'" in value or "\\" in value:
        raise RegistryError(f"a name in the registry must hold no quote and no backslash, got {value!r}")
    return f"'{value}'"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys; lists become JSON.

    >>> flatten({"a": {"b": 1, "c": None}, "d": [1, 2]})
    {'a.b': 1, 'a.c': None, 'd': '[1, 2]'}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = json.dumps(value) if isinstance(value, (list, tuple)) else value
    return flat


def open_night_run(workspace: Path, night_id: str, tags: Mapping[str, str] | None = None) -> str:
    """Return the run of the night ``night_id``, made where there is none.

    A night that is taken up again finds its run again and sets it running; the runs of stages that it had left open are
    closed as KILLED.

    Args:
        workspace: the folder of ``params.yaml``.
        night_id: the night's id, such as ``2026-03-12T00-00-00Z``.
        tags: further tags, written over at each call.
    """
    store = connect(workspace)
    criterion = f"tags.{_NIGHT} = {quoted(night_id)} and tags.{_KIND} = 'night'"
    found = store.client.search_runs([store.experiment_id], criterion, order_by=["attributes.start_time ASC"])
    if found:
        run_id = str(found[0].info.run_id)
        store.client.update_run(run_id, status="RUNNING")
        _close_killed(store, run_id)
        _log(store, run_id, tags=tags or {})
        return run_id
    own = {_NIGHT: night_id, _KIND: "night", _NAME: f"night {night_id}"}
    run = store.client.create_run(store.experiment_id, tags={**_tags(tags or {}), **own})
    return str(run.info.run_id)


def finish_night_run(
    workspace: Path,
    run_id: str,
    status: str,
    metrics: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Close the night's run, and as KILLED those of stages that are open still: they were ordered and had no turn.

    Args:
        workspace: the folder of ``params.yaml``.
        run_id: from `open_night_run`.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        metrics: the night's figures, nested or flat; what is no number is left out.
        tags: such as the verdict and the champion.
    """
    store = connect(workspace)
    _close_killed(store, run_id)
    _log(store, run_id, metrics=_numbers(metrics or {}, 0), tags=tags or {})
    store.client.set_terminated(run_id, status)


def tag_reused(workspace: Path, parent_run_id: str, runs: Mapping[str, str]) -> None:
    """Name on the night's run the runs that made the outputs of its stages.

    Args:
        workspace: the folder of ``params.yaml``.
        parent_run_id: from `open_night_run`.
        runs: stage → run id; kept as the tag ``stage.NAME.run_id`` (``@`` becomes a dot).
    """
    store = connect(workspace)
    _log(store, parent_run_id, tags={f"stage.{stage}.run_id": run for stage, run in runs.items()})


def log_files(workspace: Path, run_id: str, path: Path, folder: str | None = None) -> None:
    """Keep the file or directory ``path`` with the run, below ``folder``."""
    client = connect(workspace).client
    if path.is_dir():
        client.log_artifacts(run_id, str(path), folder)
    else:
        client.log_artifact(run_id, str(path), folder)


def log_dict(workspace: Path, run_id: str, value: Any, name: str) -> None:
    """Keep ``value`` with the run as the JSON file ``name`` (which may hold folders)."""
    folder, _, base = name.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / base
        path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        log_files(workspace, run_id, path, folder or None)


def read_file(workspace: Path, run_id: str, name: str) -> bytes | None:
    """Return the bytes of the file ``name`` that was kept with the run; ``None`` where there is none."""
    from mlflow.exceptions import MlflowException

    client = connect(workspace).client
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return Path(client.download_artifacts(run_id, name, temporary)).read_bytes()
        except (MlflowException, OSError):
            return None


class StageRun:
    """The open run of one stage, of a search or of one of its trials."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        """MLflow's id of the run."""

    def log(self, series: Iterable[tuple[int, Mapping[str, float]]], values: Mapping[str, Any]) -> None:
        """Write all of a stage's metrics in as few calls as MLflow allows.

        Args:
            series: (step, name → number) as the stage reported them.
            values: what the stage returned, nested or flat; what is no number is left out.
        """
        metrics = [metric for step, reported in series for metric in _numbers(reported, step)]
        _log(self._store, self.run_id, metrics=[*metrics, *_numbers(values, 0)])

    def tag(self, tags: Mapping[str, str]) -> None:
        """Write ``tags`` on the run."""
        _log(self._store, self.run_id, tags=tags)


def open_stage_run(workspace: Path, stage: str, parent_run_id: str | None = None, night: str | None = None) -> str:
    """Return a new run named after the stage. One of the same stage and parent that was left open is closed as KILLED.

    Args:
        workspace: the folder of ``params.yaml``.
        stage: the stage's name, with ``@INSTANCE`` where it has one.
        parent_run_id: the night's run; ``None`` when a stage runs alone, as under ``dvc repro``.
        night: the night's id, kept as a tag.
    """
    store = connect(workspace)
    tags = {_STAGE: stage, _KIND: "stage", _NAME: stage}
    if parent_run_id is not None:
        _close_killed(store, parent_run_id, stage)
        tags[_PARENT] = parent_run_id
    if night is not None:
        tags[_NIGHT] = night
    return str(store.client.create_run(store.experiment_id, tags=_tags(tags)).info.run_id)


def deliver(workspace: Path, message: Message, status: str, error: str | None = None) -> None:
    """Write what an attempt at a stage had to say on its run, and end that; one that has finished stays as it is.

    A run that is not there any more, as after a restore of an older backup, or was deleted has nobody to tell.

    Args:
        workspace: the folder of ``params.yaml``.
        message: what it said.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        error: the line that it ended with, kept as the tag ``error``.
    """
    from mlflow.exceptions import MlflowException

    store = connect(workspace)
    try:
        info = store.client.get_run(message.run_id).info
        if info.status == "FINISHED" or info.lifecycle_stage == "deleted":
            return
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return
        raise
    metrics = [metric for step, said in message.series for metric in _numbers(said, step, message.at)]
    metrics += _numbers(message.values, 0, message.at)
    _log(store, message.run_id, params=message.params, metrics=metrics, tags={_ERROR: error} if error else {})
    store.client.set_terminated(message.run_id, status)


def drop_stage_run(workspace: Path, run_id: str) -> None:
    """Delete the run of a stage that did not run after all: its outputs were there already."""
    connect(workspace).client.delete_run(run_id)


@contextmanager
def stage_run(workspace: Path, stage: str, params: Mapping[str, Any]) -> Iterator[StageRun]:
    """Open the run of a stage that runs alone, for as long as the block lasts.

    It ends FINISHED, FAILED with the error's line as the tag ``error``, or
    KILLED where the process is told to stop.

    Args:
        workspace: the folder of ``params.yaml``.
        stage: the stage's name, with ``@INSTANCE`` where it has one.
        params: the stage's settings, nested or flat.
    """
    run_id = open_stage_run(workspace, stage)
    store = connect(workspace)
    with _ended(store, run_id) as run:
        _log(store, run_id, params=params)
        yield run


@contextmanager
def _ended(store: Store, run_id: str) -> Iterator[StageRun]:
    """Give the running run ``run_id`` and end it as the block ends."""
    run = StageRun(store, run_id)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except Exception as error:
        run.tag({_ERROR: one_line(f"{type(error).__name__}: {error}")})
        raise
    except BaseException:
        status = "KILLED"
        raise
    finally:
        store.client.set_terminated(run_id, status)


def _close_killed(store: Store, parent_run_id: str, stage: str | None = None) -> None:
    criterion = f"tags.`{_PARENT}` = {quoted(parent_run_id)} and attributes.status = 'RUNNING'"
    of_stage = f" and tags.{_STAGE} = {quoted(stage)}" if stage else ""
    for run in store.client.search_runs([store.experiment_id], criterion + of_stage):
        store.client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def search_run(workspace: Path, search: str, student: str, tags: Mapping[str, str] | None = None) -> Iterator[StageRun]:
    """Open the run of a search for as long as the block lasts: the parent of its trials.

    A search that is taken up again finds its run again, and trials that a killed process left open are closed as
    KILLED. It ends as `stage_run` does.

    Args:
        workspace: the folder of ``params.yaml``.
        search: what tells this search from others.
        student: whose settings are searched.
        tags: further tags, written over at each call.
    """
    store = connect(workspace)
    criterion = f"tags.{_SEARCH} = {quoted(search)} and tags.{_KIND} = 'search'"
    found = store.client.search_runs([store.experiment_id], criterion)
    if found:
        run_id = str(found[0].info.run_id)
        store.client.update_run(run_id, status="RUNNING")
        _close_killed(store, run_id)
    else:
        own = {_SEARCH: search, _STUDENT: student, _KIND: "search", _NAME: f"tune {student}"}
        run_id = str(store.client.create_run(store.experiment_id, tags=_tags(own)).info.run_id)
    with _ended(store, run_id) as run:
        run.tag(tags or {})
        yield run


@contextmanager
def trial_run(workspace: Path, parent_run_id: str, number: int, params: Mapping[str, Any]) -> Iterator[StageRun]:
    """Open the run of one trial for as long as the block lasts, nested in its search's; it ends as `stage_run` does.

    Args:
        workspace: the folder of ``params.yaml``.
        parent_run_id: the run of `search_run`.
        number: the trial's.
        params: what it runs with, nested or flat.
    """
    store = connect(workspace)
    tags = {_PARENT: parent_run_id, _KIND: "trial", _NAME: f"trial {number}"}
    run_id = str(store.client.create_run(store.experiment_id, tags=_tags(tags)).info.run_id)
    with _ended(store, run_id) as run:
        _log(store, run_id, params=params)
        yield run


def _numbers(values: Mapping[str, Any], step: int, at: int | None = None) -> list[Metric]:
    from mlflow.entities import Metric

    stamp = int(time.time() * 1000) if at is None else at
    return [
        Metric(safe_name(name), float(value), stamp, step)
        for name, value in flatten(values).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {safe_name(key): str(value)[:_LONGEST] for key, value in tags.items()}


def _log(
    store: Store,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    from mlflow.entities import Param, RunTag

    flat = [Param(safe_name(key), str(value)[:_LONGEST]) for key, value in flatten(params or {}).items()]
    marks = [RunTag(key, value) for key, value in _tags(tags or {}).items()]
    for start in range(0, max(len(flat), len(marks)), _PARAMS_A_CALL):
        window = slice(start, start + _PARAMS_A_CALL)
        store.client.log_batch(run_id, params=flat[window], tags=marks[window])
    for start in range(0, len(metrics), _METRICS_A_CALL):
        store.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_CALL])


def log_model_metrics(store: Store, run_id: str, model_id: str, values: Mapping[str, Any]) -> None:
    """Write ``values`` on the logged model ``model_id``, as figures of the run ``run_id``."""
    from mlflow.entities import Metric

    metrics = [Metric(one.key, one.value, one.timestamp, 0, model_id=model_id) for one in _numbers(values, 0)]
    _log(store, run_id, metrics=metrics)
