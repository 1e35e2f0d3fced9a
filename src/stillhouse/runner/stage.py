"""Runs one stage: what ``stillhouse stage NAME`` does, and so what ``dvc.yaml`` calls."""

from __future__ import annotations

import gc
import hashlib
import importlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.data.files import sha256_file, sha256_tree, write_json
from stillhouse.errors import NightError, ParamsError, unknown_name
from stillhouse.params.base import StageParams, build, read_yaml, stage_values
from stillhouse.params.document import STAGE_PARAMS
from stillhouse.runner import outbox, outcome
from stillhouse.runner.closure import import_closure, package_root
from stillhouse.runner.console import ConsoleReporter
from stillhouse.runner.declared import declared

if TYPE_CHECKING:
    from stillhouse.tracking.runs import StageRun

__all__ = ["STATE", "load_stage", "run_stage", "too_long"]

#: Folder of the workspace that holds what no stage depends on.
STATE = ".stillhouse"

#: Threads that wait for each other sleep instead of spinning, which made training on a busy machine nine times slower.
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}

#: Arguments in a stage's command that are the runner's own.
_OWN = ("metrics", "run")


def run_stage(name: str, paths: Mapping[str, Path], workspace: Path) -> None:
    """Run the stage called ``name`` on ``paths`` and write what it said.

    Args:
        name: the stage as in ``dvc.yaml``, with ``@INSTANCE`` where it has one.
        paths: argument → path below ``workspace``; ``metrics`` and ``run`` are the runner's.
        workspace: the folder of ``params.yaml`` and ``night.yaml``.

    Raises:
        ParamsError: an unknown stage, a missing or surplus path, a bad setting.
        StillhouseError: whatever the stage raises.
    """
    started = time.monotonic()
    state = workspace / STATE
    outcome.clear(state, name)
    try:
        _run(name, paths, workspace, started)
    except BaseException as error:
        full = outcome.no_room(name, workspace, error)
        with suppress(OSError):  # no room for the note either: whoever started the stage looks for itself
            outcome.failed(state, name, full or error)
        if full is None:
            raise
        raise full from error
    outcome.finished(state, name, time.monotonic() - started)


def too_long(workspace: Path, name: str, seconds: float) -> None:
    """Note, as a known error that is not retried, that a stage is about to be killed at its time limit."""
    error = NightError(
        f"stage {name} must end within {seconds:.0f} s, found it still at work: it was stopped (tasks/policy.py)"
    )
    outcome.failed(workspace / STATE, name, error)


def load_stage(name: str) -> tuple[Callable[..., Mapping[str, Any]], type[StageParams]]:
    """Return the function and the settings model of the stage called ``name`` (no ``@``).

    Raises:
        ParamsError: there is no such stage.
    """
    if name not in STAGE_PARAMS:
        raise ParamsError(unknown_name("stage", name, STAGE_PARAMS, "command line"))
    module = importlib.import_module(f"stillhouse.stages.{name}")
    return getattr(module, name), STAGE_PARAMS[name]


def _run(name: str, paths: Mapping[str, Path], workspace: Path, started: float) -> None:
    for variable, value in _PATIENT.items():  # read by the thread pools as they are loaded, so before any stage is
        os.environ.setdefault(variable, value)
    base, _, instance = name.partition("@")
    function, model = load_stage(base)
    params = _params(model, workspace, instance or None)
    arguments: dict[str, Any] = {key: path for key, path in paths.items() if key not in _OWN}
    if "resume" in inspect.signature(function).parameters:
        arguments["resume"] = _resume_folder(workspace, name, function, params, arguments)
    _check_arguments(name, function, arguments)
    _fresh_outputs(paths)
    reporter = ConsoleReporter(name)

    with _tracked(workspace, name, json.loads(params.model_dump_json())) as run:
        _collect_garbage()
        values = function(**arguments, params=params, reporter=reporter)
        run.log(reporter.series, values)
    write_json(paths["metrics"], values)
    write_json(paths["run"], {"run_id": run.run_id, "seconds": round(time.monotonic() - started, 3)})


@contextmanager
def _tracked(workspace: Path, name: str, params: Mapping[str, Any]) -> Iterator[outbox.Poster | StageRun]:
    """Give the stage's tracking run: the one that a flow has opened and closes, or one of its own under `dvc repro`."""
    opened = os.environ.get(outbox.STAGE_RUN)
    if opened is not None:
        yield outbox.Poster(workspace / STATE, name, opened, params)
        return

    from stillhouse.tracking.runs import stage_run

    with stage_run(workspace, name, params) as run:
        yield run


def _collect_garbage() -> None:
    """Look for garbage from here on, where the command line put it off, and never among what was imported."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _params(model: type[StageParams], workspace: Path, instance: str | None) -> StageParams:
    params = read_yaml(workspace / "params.yaml")
    night = read_yaml(workspace / "night.yaml") if model.night else {}
    return build(model, stage_values(model, params, night, instance), f"params.yaml: {model.section}")


def _check_arguments(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    expected = set(inspect.signature(function).parameters) - {"params", "reporter"}
    if expected != set(given):
        missing, surplus = sorted(expected - set(given)), sorted(set(given) - expected)
        raise ParamsError(
            f"stage {name} must be given the paths {', '.join(sorted(expected))}; "
            f"missing: {', '.join(missing) or 'none'}, surplus: {', '.join(surplus) or 'none'} (dvc.yaml: {name}.cmd)"
        )


def _fresh_outputs(paths: Mapping[str, Path]) -> None:
    for key in _OWN:
        paths[key].unlink(missing_ok=True)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)


def _resume_folder(
    workspace: Path, name: str, function: Callable[..., Any], params: StageParams, paths: Mapping[str, Path]
) -> Path:
    """Return the stage's resume folder: keyed by its code, its params and the bytes of its inputs."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    for file in import_closure(function.__module__):
        digest.update(sha256_file(package_root() / file).encode())
    # What it makes may stand there, from another night or damaged.
    made = declared(workspace, name).made if (workspace / "dvc.yaml").exists() else {}
    for key, path in sorted(paths.items()):
        if key not in made and path.exists():
            digest.update(f"{key}={sha256_tree(path)}".encode())
    home = workspace / STATE / "resume" / name
    folder = home / digest.hexdigest()[:32]
    if home.exists():
        for other in home.iterdir():  # another night's, or from before an edit: of no use to anyone
            if other != folder:
                shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
