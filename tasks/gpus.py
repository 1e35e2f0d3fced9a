"""One GPU of this machine for one stage: which there are, and which of them nobody else's stage runs on."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from stillhouse.errors import NightError

__all__ = ["VISIBLE", "gpus_here", "own_gpu"]

#: Environment variable that says which GPUs a process may use; it sees no others, and counts those from 0.
VISIBLE = "CUDA_VISIBLE_DEVICES"

#: Where the locks lie, closed to everybody else. Not TMPDIR: workers in other environments must find the same place.
_LOCKS = Path(f"/tmp/stillhouse-{os.geteuid()}-gpus")  # noqa: S108  # ours alone, see `_place`

#: Seconds between two looks for a GPU that has become free.
_LOOK = 1.0

#: A line of `nvidia-smi -L`; a GPU's parts (MIG) are listed below it, indented.
_LINE = re.compile(r"GPU \d+: .*\(UUID: (\S+)\)")


def gpus_here() -> dict[str, str]:
    """Return what `VISIBLE` calls each GPU that may be used here → what its lock is called: its index, where one knows.

    These are the ones that `VISIBLE` names in this environment, or else all that nvidia-smi lists. As CUDA reads it,
    the variable ends before the first name that is none of a GPU here.

    Raises:
        TimeoutExpired: nvidia-smi does not answer.
    """
    listed = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return {str(index): str(index) for index in range(len(listed))}
    found: dict[str, str] = {}
    for name in (one.strip() for one in given.split(",")):
        indices = [str(index) for index, uuid in enumerate(listed) if name.startswith("GPU-") and uuid.startswith(name)]
        if len(indices) == 1:
            found[name] = indices[0]
        elif name.startswith("MIG-"):
            found[name] = re.sub(r"[^\w-]", "-", name)
        elif name.isdecimal() and (not listed or int(name) < len(listed)):
            found[name] = str(int(name))
        else:
            break
    return found


def _listed() -> list[str]:
    """Return the UUID of each GPU that nvidia-smi lists, by index; none where it is not there, or finds no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return []
    return [found.group(1) for line in done.stdout.splitlines() if (found := _LINE.match(line))]


@contextmanager
def own_gpu(given_up: Callable[[], bool] = lambda: False) -> Iterator[dict[str, str]]:
    """Hold a GPU of this machine that nobody else holds; give the variables by which a process uses it, and no other.

    Where every one is held it waits: a pool with more slots than GPUs loses time by that. Two stages on one GPU would
    run out of its memory together, or each at half its speed into its time limit. The lock is this process's, so one
    that is killed holds nothing. Where there is no GPU nothing is held, and nothing is given.

    Args:
        given_up: whether nobody wants the GPU any more; asked while one is waited for.

    Raises:
        NightError: the folder of the locks is somebody else's.
        RuntimeError: the wait was given up.
        TimeoutExpired: nvidia-smi does not answer.
    """
    gpus = gpus_here()
    if not gpus:
        yield {}
        return
    place, said = _place(), False
    while (held := _take(place, gpus)) is None:
        if not said:
            logging.getLogger(__name__).warning(
                "every GPU here is held by another stage: waiting (%s; has the pool more slots than GPUs?)", place
            )
            said = True
        if given_up():
            raise RuntimeError("the stage was given up while it waited for a GPU")
        time.sleep(_LOOK)
    name, lock = held
    try:
        yield {VISIBLE: name}
    finally:
        lock.release()


def _take(place: Path, gpus: dict[str, str]) -> tuple[str, filelock.BaseFileLock] | None:
    for name, index in gpus.items():
        lock = filelock.FileLock(place / f"{index}.lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            continue
        return name, lock
    return None


def _place() -> Path:
    with suppress(FileExistsError):
        _LOCKS.mkdir(mode=0o700)
    found = _LOCKS.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NightError(f"{_LOCKS} must be a folder of this user, found another's: remove it")
    return _LOCKS
