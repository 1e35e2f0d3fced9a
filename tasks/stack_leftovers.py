"""Ends what an earlier run of one of the stack's servers left.

``mlflow server`` that is killed leaves a child behind, which would hold the port, and the server would never come
back. Run by path before the server starts, with nothing but psutil, because it stands in its way.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping

import psutil

__all__ = ["PROGRAM", "end_leftovers"]

#: Environment variable that marks the processes of one server of a stack with its name.
PROGRAM = "STILLHOUSE_STACK_PROGRAM"


def end_leftovers(marks: Mapping[str, str], patience: float = 10.0) -> int:
    """Kill every other process whose environment holds all of ``marks``, wait, and return how many there were."""
    found = [process for process in psutil.process_iter() if process.pid != os.getpid() and _carries(process, marks)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=patience)
    return len(found)


def _carries(process: psutil.Process, marks: Mapping[str, str]) -> bool:
    try:
        environment = process.environ()
    except psutil.Error:
        return False
    return all(environment.get(name) == value for name, value in marks.items())


if __name__ == "__main__":
    end_leftovers({name: os.environ[name] for name in sys.argv[1:]})
