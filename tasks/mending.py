"""What DVC writes in place, kept so that a kill in the middle of a write loses nothing.

DVC rewrites its lock of the graph, the pointer of a tracked folder and its table of readers and
writers in place. A process that is killed at that moment leaves half a file, which DVC then refuses.
The lock is safe from a kill of ours (`tasks.lockfile`), not from one of ``dvc`` itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stillhouse.data.files import write_bytes
from stillhouse.errors import NightError
from stillhouse.runner.stage import STATE
from tasks.workspace import exclusive_for_a_moment

__all__ = ["keep", "keep_or_forget", "look", "mend", "mend_readers"]

T = TypeVar("T")

#: Seconds for which a reader waits for a run to finish rewriting a file.
_PATIENCE = 5.0

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Folder below the workspace's state that holds the last whole copies.
_KEPT = "dvc"


def keep(root: Path) -> None:
    """Copy what DVC is about to rewrite, where it is whole."""
    for name, schema in _schemas().items():
        kept = root / STATE / _KEPT / name
        found = _whole(root / name, schema)
        if found is None or (kept.is_file() and kept.read_bytes() == found):
            continue
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, found)


def keep_or_forget(root: Path) -> None:
    """Copy as `keep` does; where there is no room for that, an older copy goes: it must not come back."""
    try:
        keep(root)
    except OSError:
        for name in _schemas():
            (root / STATE / _KEPT / name).unlink(missing_ok=True)


def mend(root: Path) -> list[str]:
    """Put the last whole copy in place of what a killed DVC left half written; the caller holds the workspace.

    A stage that ended since the copy was made is found in DVC's run cache, or runs again.

    Returns:
        The names of the files that were mended.
    """
    mended = []
    for name, schema in _schemas().items():
        file, kept = root / name, root / STATE / _KEPT / name
        if file.exists() and _whole(file, schema) is None:
            before = _whole(kept, schema)
            if before is None:
                file.unlink()
            else:
                write_bytes(file, before)
            mended.append(name)
    return mended


def look(root: Path, reading: Callable[[], T]) -> T:
    """Return what ``reading`` returns, for a reader that does not hold the workspace.

    A file that is being rewritten at this moment, by a run or by DVC itself, is read again; one that a killed run left
    half written is mended.

    Raises:
        NightError: ``reading`` fails, and not for such a file.
    """
    deadline, whole = time.monotonic() + _PATIENCE, 0
    while True:
        try:
            return reading()
        except NightError:
            with exclusive_for_a_moment(root) as held:
                mended = _mend_beside_dvc(root) if held else None
            # Whole now, though it was not when it was read: it may have been finished in between, once.
            whole += mended == []
            if whole > 1 or time.monotonic() > deadline:
                raise
            if mended is None:
                time.sleep(0.1)


def _mend_beside_dvc(root: Path) -> list[str] | None:
    """`mend` while nobody else's DVC works in the workspace; ``None``: somebody's does."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, repo.lock:
            return mend(root)
    except LockError:
        return None


def mend_readers(repository: Any) -> None:
    """Remove DVC's table of readers and writers where it is half written: whoever wrote it is gone.

    It is looked at under the lock that DVC itself holds while it writes.
    """
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    table = Path(repository.tmp_dir) / RWLOCK_FILE
    if _is_json(table):
        return
    hard = repository.config["core"].get("hardlink_lock", False)
    with make_lock(str(table.with_name(RWLOCK_LOCK)), tmp_dir=repository.tmp_dir, hardlink_lock=hard):
        if not _is_json(table):
            table.unlink(missing_ok=True)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _schemas() -> dict[str, Callable[[Any], Any]]:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA, COMPILED_SINGLE_STAGE_SCHEMA

    return {"dvc.lock": COMPILED_LOCKFILE_SCHEMA, "previous.dvc": COMPILED_SINGLE_STAGE_SCHEMA}


def _whole(file: Path, schema: Callable[[Any], Any]) -> bytes | None:
    """Return the bytes of ``file`` where DVC would take them and they end as it ends a file, else ``None``."""
    from voluptuous import Invalid

    try:
        found = file.read_bytes()
        schema(yaml.load(found, Loader=_LOADER))  # noqa: S506  # a safe loader, in C where there is one
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError, Invalid):
        return None
    return found if found.endswith(b"\n") else None
