"""What the trials of a search run on: the paths that dvc.yaml gives the stage, held still while a night goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stillhouse.data.files import write_none
from stillhouse.errors import NightError
from stillhouse.runner.declared import declared

__all__ = ["held_still", "stage_inputs"]

#: What the names of inputs from last night begin with.
_PREVIOUS = "previous_"


def stage_inputs(workspace: Path, stage: str, instance: str) -> dict[str, Path]:
    """Return argument → path of what the stage takes, as ``dvc.yaml`` has it.

    What is from last night may be missing: a student that params.yaml has got since the last night has nothing there.

    Args:
        workspace: the folder of ``dvc.yaml``.
        stage: one that runs once a student.
        instance: the student's name.

    Raises:
        NightError: no night has made one of them yet.
    """
    found = declared(workspace, f"{stage}@{instance}").taken
    needed = [path for argument, path in found.items() if not argument.startswith(_PREVIOUS)]
    missing = [path.relative_to(workspace).as_posix() for path in needed if not path.exists()]
    if missing:
        raise NightError(
            f"a search takes what a night has prepared, found no {', '.join(missing)} here: `stillhouse run` first"
        )
    return found


@contextmanager
def held_still(inputs: Mapping[str, Path], folder: Path, *, warm: bool) -> Iterator[dict[str, Path]]:
    """Give the same inputs below ``folder`` for as long as the block lasts.

    The files there are further names (hard links) of the same bytes, or copies where the file system has no such
    thing. A night that runs meanwhile puts other files in place of its outputs; these keep their bytes, and the
    night's are never written to.

    Args:
        inputs: argument → path.
        folder: the caller's own; what is in it goes before and after.
        warm: whether what is from last night is taken, too; otherwise it is replaced by *nothing*.

    Raises:
        NightError: a night that runs meanwhile took one of them away before it was held.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for argument, path in inputs.items():
            if argument.startswith(_PREVIOUS) and not warm:
                write_none(folder / argument)
            else:
                _hold(path, folder / argument)
        yield {argument: folder / argument for argument in inputs}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hold(source: Path, target: Path) -> None:
    try:
        _link(source, target)
    except FileNotFoundError as error:
        raise NightError(
            f"a search takes what a night has prepared, found that {error.filename} went meanwhile: "
            "wait for the night to close"
        ) from None


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True)
        for member in sorted(source.iterdir()):
            _link(member, target / member.name)
        return
    try:
        os.link(source.resolve(), target)  # resolved: DVC's cache may be linked to
    except OSError:  # another file system, or a cache that belongs to someone else
        shutil.copyfile(source, target)
