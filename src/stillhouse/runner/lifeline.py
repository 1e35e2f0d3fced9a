"""Heavy work that ends when its parent does.

A night killed with SIGKILL can tidy nothing up, so each stage process sees to
its own end: the kernel kills it when the process that started it is gone
(``PR_SET_PDEATHSIG``), and a thread kills its whole process group when the
flow's process, named in the environment, is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

__all__ = ["NIGHT_PID", "TIME_LIMIT", "tie_to_parent", "under_a_flow"]

#: Environment variable that names the process of the flow.
NIGHT_PID = "STILLHOUSE_NIGHT_PID"

#: Environment variable with the most seconds that a stage may run.
TIME_LIMIT = "STILLHOUSE_TIME_LIMIT"

_PR_SET_PDEATHSIG = 1


def under_a_flow() -> bool:
    """Say whether this process runs one stage of a flow."""
    return NIGHT_PID in os.environ


def tie_to_parent(on_limit: Callable[[float], None] = lambda seconds: None) -> None:
    """Let this process die with its parent; under a flow, with the whole group that it heads, and with the flow.

    Does nothing beyond the process group where the kernel is not Linux.

    Args:
        on_limit: called with the limit in seconds just before a stage that ran too long is killed.
    """
    parent = os.getppid()
    if under_a_flow():  # run by hand, it stays in the terminal's group, so that Ctrl-C reaches it
        with contextlib.suppress(PermissionError):  # a session leader cannot move; it heads a group already
            os.setpgid(0, 0)
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
    flow = os.environ.get(NIGHT_PID)
    limit = float(os.environ[TIME_LIMIT]) if TIME_LIMIT in os.environ else None
    if flow is not None:
        threading.Thread(target=_watch, args=(int(flow), limit, on_limit), name="lifeline", daemon=True).start()


def _watch(pid: int, limit: float | None, on_limit: Callable[[float], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        ended, _, _ = select.select([os.pidfd_open(pid)], [], [], limit)
        if not ended and limit is not None:
            on_limit(limit)
    os.killpg(0, signal.SIGKILL)
