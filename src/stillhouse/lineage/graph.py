"""What ``dvc.lock`` says about one student: the stages it came through, each input and output by content hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from stillhouse.errors import RegistryError

__all__ = ["find_output", "stages_behind"]

Plain = dict[str, Any]


def stages_behind(
    lock: Mapping[str, Any], targets: Iterable[str], runs: Mapping[str, str] | None = None
) -> tuple[list[Plain], dict[str, str]]:
    """Return the stages that ``targets`` rest on, and the code they were made by.

    A stage is kept as its command, params, inputs and outputs. An input or
    output has the path, the argument that the stage takes it under, DVC's MD5
    (``….dir`` for a directory, as ``dvc.lock`` has it), size and number of files.

    Args:
        lock: ``dvc.lock`` as plain data.
        targets: stages that must be in it, such as ``package@gru``.
        runs: stage → tracking run that made its outputs.

    Returns:
        The stages, those without predecessors first, equal ones by name; and
        path → MD5 of every code file that one of them depends on.

    Raises:
        RegistryError: the lock lacks a target, or a path's hash.
    """
    locked: Mapping[str, Mapping[str, Any]] = lock.get("stages", {})
    makers = {out["path"]: name for name, stage in locked.items() for out in stage.get("outs", ())}
    wanted: dict[str, None] = {}
    for target in targets:
        if target not in locked:
            raise RegistryError(f"dvc.lock must hold the stage {target}, found {', '.join(sorted(locked)) or 'none'}")
        _collect(target, locked, makers, wanted)
    code: dict[str, str] = {}
    stages = [_stage(name, locked[name], (runs or {}).get(name), code) for name in wanted]
    return stages, dict(sorted(code.items()))


def _collect(
    name: str, locked: Mapping[str, Mapping[str, Any]], makers: Mapping[str, str], wanted: dict[str, None]
) -> None:
    """Add ``name`` after everything that it rests on."""
    before = {maker for dep in locked[name].get("deps", ()) if (maker := _maker(dep["path"], makers))}
    for other in sorted(before - wanted.keys()):
        _collect(other, locked, makers, wanted)
    wanted.setdefault(name)


def _maker(path: str, makers: Mapping[str, str]) -> str | None:
    pure = PurePosixPath(path)
    return next((makers[str(part)] for part in (pure, *pure.parents) if str(part) in makers), None)


def _stage(name: str, locked: Mapping[str, Any], run: str | None, code: dict[str, str]) -> Plain:
    command = str(locked["cmd"])
    arguments = {path: key for key, _, path in (word.partition("=") for word in command.split()) if path}
    inputs = [_file(name, dep, arguments) for dep in locked.get("deps", ())]
    for one in inputs:
        if one["argument"] is None:
            code[one["path"]] = one["md5"]
    return {
        "name": name,
        "command": " ".join(command.split()),
        "params": locked.get("params", {}),
        "inputs": [one for one in inputs if one["argument"] is not None],
        "code": sorted(one["path"] for one in inputs if one["argument"] is None),
        "outputs": [_file(name, out, arguments) for out in locked.get("outs", ())],
        "run": run,
    }


def _file(stage: str, entry: Mapping[str, Any], arguments: Mapping[str, str]) -> Plain:
    path = entry["path"]
    if "md5" not in entry:
        raise RegistryError(f"dvc.lock must hold the md5 of {path}, found {sorted(entry)} (dvc.lock: {stage})")
    plain = {"path": path, "argument": arguments.get(path), "md5": entry["md5"], "size": entry.get("size")}
    return plain | ({"files": entry["nfiles"]} if "nfiles" in entry else {})


def find_output(stages: Iterable[Plain], stage: str, argument: str) -> Plain | None:
    """Return what ``stage`` gave as ``argument``, or ``None`` where no such stage is among ``stages``."""
    for one in stages:
        if one["name"] == stage:
            return next((output for output in one["outputs"] if output["argument"] == argument), None)
    return None
