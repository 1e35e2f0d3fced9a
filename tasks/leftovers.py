"""What lies in a workspace's own state and can be made again, or was left behind by a kill."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock
import psutil

from stillhouse.runner.stage import STATE

__all__ = ["leftovers", "put_away", "size_of"]

#: Seconds for which a cache or a scratch folder must have been left alone: one that is younger may be in use.
_REST = 3600.0

#: Folder below the state that things are moved to before they are removed: nobody meets one that is half gone.
_GONE = "gone"


def leftovers(
    root: Path, *, packages: Collection[str], statements: Collection[str], keep_resume: bool
) -> Iterator[Path]:
    """Give every file and folder below ``.stillhouse`` that is nobody's only copy; the caller holds the workspace.

    Args:
        root: the workspace.
        packages: SHA-256 of packages that may be served any moment: their copies stay.
        statements: SHA-256 of registered records: their copies stay.
        keep_resume: keep what stages of the open night go on from.
    """
    state = root / STATE
    yield from (place for place in _below(state / "compared") if _rests(place))
    yield from (place for place in _below(state / "serving") if place.name not in packages and _rests(place))
    yield from (file for file in _below(state / "records") if file.stem not in statements)
    yield from (place for place in sorted(state.glob("reproduced-*")) if _rests(place) and not _inhabited(place))
    yield from (place for place in (state / "previous.new", state / _GONE) if place.exists())
    yield from sorted((state / "backfills").glob("*.new"))
    yield from (place for place in sorted((state / "tune").glob("*.inputs")) if not _searched(place))
    if not keep_resume and (state / "resume").exists():
        yield state / "resume"


def put_away(root: Path, places: Collection[Path]) -> None:
    """Remove files and folders, each in one step for whoever looks."""
    gone = root / STATE / _GONE
    for place in places:
        gone.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if place != gone:
                place.replace(gone / uuid.uuid4().hex)
    shutil.rmtree(gone, ignore_errors=True)


def size_of(place: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    sizes = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(file.lstat().st_size)
    return sum(sizes)


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _rests(place: Path) -> bool:
    """Say whether neither the folder nor what lies directly in it, nor in that, has changed for a while."""
    latest = 0.0
    for one in (place, *place.glob("*"), *place.glob("*/*")):
        with contextlib.suppress(FileNotFoundError):
            latest = max(latest, one.lstat().st_mtime)
    return time.time() - latest > _REST


def _searched(inputs: Path) -> bool:
    """Say whether a search is at work that holds ``inputs`` still; one that was killed holds its lock no more."""
    file = inputs.with_suffix(".lock")
    if not file.exists():  # to ask for it would make it
        return False
    lock = filelock.FileLock(file, blocking=False)
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True


def _inhabited(place: Path) -> bool:
    """Say whether a process works in the folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(place):
                return True
    return False
