"""One run at a time in a workspace, and nothing left behind by one that was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import filelock
import psutil

from stillhouse.data.files import write_json
from stillhouse.errors import NightError
from stillhouse.runner.stage import STATE

__all__ = ["TOKEN", "exclusive", "exclusive_for_a_moment", "sweep"]

#: Environment variable that marks every process that a run starts.
TOKEN = "STILLHOUSE_RUN_TOKEN"  # noqa: S105  # a mark, not a secret

#: Seconds that a run waits for the workspace before it is refused.
_MOMENT = 2.0

_WATCH = """
import os, select, sys
from tasks.workspace import sweep
try:
    select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
except ProcessLookupError:
    pass
sweep(sys.argv[2])
"""


@contextlib.contextmanager
def exclusive(root: Path, patience: float = _MOMENT, *, frees: bool = False) -> Iterator[None]:
    """Hold the workspace for one run.

    Processes of an earlier run that was killed are ended first. Should this
    process be killed, a watcher ends everything that it had started.

    Args:
        root: the workspace.
        patience: seconds to wait for another run; whoever reads the workspace may hold it for a moment.
        frees: whoever asks is going to make room, and must get in where there is none for a note of it.

    Raises:
        NightError: another run holds the workspace.
    """
    state = root / STATE
    state.mkdir(exist_ok=True)
    lock = filelock.FileLock(state / "run.lock", timeout=patience)
    note = state / "run.json"
    try:
        lock.acquire()
    except filelock.Timeout:
        raise NightError(
            f"one night runs at a time in a workspace, found {_holder(note)} at work here: wait for it to end"
        ) from None
    try:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            sweep(json.loads(note.read_text())["token"])
        token = uuid.uuid4().hex
        try:
            write_json(note, {"pid": os.getpid(), "token": token})  # whole or not at all: the next run sweeps by it
        except OSError:
            if not frees:
                raise
        os.environ[TOKEN] = token
        watcher = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(os.getpid()), token],
            cwd=Path(__file__).parent.parent,
            env={key: value for key, value in os.environ.items() if key != TOKEN},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = signal.signal(signal.SIGINT, _interrupted(token))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            watcher.kill()
            watcher.wait()
            os.environ.pop(TOKEN, None)
    finally:
        lock.release()


@contextlib.contextmanager
def exclusive_for_a_moment(root: Path) -> Iterator[bool]:
    """Keep runs out while something small is put right; yields ``False`` where a run holds the workspace."""
    if not (root / STATE).is_dir():
        yield True
        return
    lock = filelock.FileLock(root / STATE / "run.lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _interrupted(token: str) -> Callable[[int, FrameType | None], None]:
    """Return what Ctrl-C does: end what the run has started, then this process.

    A night may be cut off anywhere, so nothing is to be tidied up; Prefect would wait for the running stage to end.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        sweep(token)
        os.write(2, b"stillhouse: interrupted; the next run goes on from here\n")
        os._exit(130)

    return end


def _holder(note: Path) -> str:
    try:
        return f"process {json.loads(note.read_text())['pid']}"
    except (FileNotFoundError, ValueError, KeyError):
        return "another process"


def sweep(token: str, patience: float = 10.0) -> None:
    """Kill every process that carries ``token`` in its environment, and wait until it is gone.

    Args:
        token: the mark of an ended run.
        patience: most seconds to wait for killed processes to leave.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        marked = [process for process in psutil.process_iter() if _carries(process, token)]
        if not marked:
            return
        for process in marked:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(marked, timeout=0.5)


def _carries(process: psutil.Process, token: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TOKEN) == token
    except psutil.Error:
        return False
