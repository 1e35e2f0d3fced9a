"""Small files of Stillhouse's own in DVC's default remote: what clones share beside the data.

They lie below ``stillhouse/`` in the remote, where ``dvc gc`` never looks: a
night's code as a git bundle, the ledger's head.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stillhouse.errors import NightError, StillhouseError, one_line
from stillhouse.runner.outcome import TRIAL
from tasks.graph import repository

__all__ = ["get", "names", "put", "remove", "size", "trouble"]

_FOLDER = "stillhouse"


def put(root: Path, name: str, data: bytes) -> None:
    """Keep ``data`` under ``name``, whole or not at all, in place of what was there.

    Args:
        root: the workspace.
        name: a path with forward slashes, such as ``nights/2026-03-02/open.bundle``.
        data: its bytes.

    Raises:
        NightError: the workspace has no remote, or it cannot be written.
    """
    with _place(root) as (files, base):
        target = files.join(base, *name.split("/"))
        files.makedirs(files.parent(target), exist_ok=True)
        if files.protocol != "local":  # a store of objects writes each of them whole
            files.pipe_file(target, data)
            return
        beside = f"{target}.{uuid.uuid4().hex}.new"
        try:
            files.pipe_file(beside, data)
            Path(beside).replace(target)
        finally:
            Path(beside).unlink(missing_ok=True)


def get(root: Path, name: str) -> bytes | None:
    """Return the bytes kept under ``name``; ``None``: there are none.

    Raises:
        NightError: the workspace has no remote, or it cannot be read.
    """
    with _place(root) as (files, base):
        try:
            return bytes(files.cat_file(files.join(base, *name.split("/"))))
        except FileNotFoundError:
            return None


def names(root: Path, folder: str) -> list[str]:
    """Return the names kept below ``folder``, sorted.

    Raises:
        NightError: the workspace has no remote, or it cannot be read.
    """
    with _place(root) as (files, base):
        place = files.join(base, *folder.split("/"))
        if not files.exists(place):
            return []
        found = [files.relpath(path, base).replace("\\", "/") for path in files.find(place)]
        return sorted(name for name in found if not name.endswith(".new"))


def size(root: Path, name: str) -> int:
    """Return the bytes that ``name`` takes; 0: there is nothing of that name."""
    with _place(root) as (files, base):
        try:
            return int(files.info(files.join(base, *name.split("/")))["size"] or 0)
        except FileNotFoundError:
            return 0


def remove(root: Path, name: str) -> None:
    """Remove what is kept under ``name``; where nothing is, nothing happens.

    Raises:
        NightError: the workspace has no remote, or it cannot be written.
    """
    with _place(root) as (files, base), suppress(FileNotFoundError):
        files.rm_file(files.join(base, *name.split("/")))


def trouble(root: Path) -> str:
    """Return what a trial write into the remote says, "" where it goes well: DVC counts failures and names no cause."""
    try:
        with _place(root) as (files, base):
            trial = files.join(base, f"trial.{uuid.uuid4().hex}.new")
            files.makedirs(base, exist_ok=True)
            try:
                files.pipe_file(trial, bytes(TRIAL))
            finally:
                if files.exists(trial):
                    files.rm_file(trial)
    except NightError as error:
        return str(error)
    return ""


@contextmanager
def _place(root: Path) -> Iterator[tuple[Any, str]]:
    from dvc.config import ConfigError

    with repository(root) as repo:
        try:
            remote = repo.cloud.get_remote(command="push")
        except ConfigError as error:
            raise NightError(one_line(f"the workspace must have a DVC remote, DVC said: {error}")) from error
        try:
            yield remote.fs, remote.fs.join(remote.path, _FOLDER)
        except StillhouseError:
            raise
        except Exception as error:  # each kind of store raises what its own library raises, not only OSError
            raise NightError(
                one_line(f"DVC's remote {remote.name} must be reachable, it said: {type(error).__name__}: {error}")
            ) from error
