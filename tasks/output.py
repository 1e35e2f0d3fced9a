"""What a flow on a worker prints, and what its stages print: a pipe to the worker, who may die before them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading

__all__ = ["outlive_reader"]

#: Seconds for which the end of a process waits for the last of its output to be passed on.
_LAST_WORDS = 5.0


def outlive_reader() -> None:
    """Let this process and its children print on where whoever reads that has died; what nobody reads is dropped.

    Without this, the first line after the worker's death is a BrokenPipeError in a stage, and a SystemExit where
    Prefect's own log is printed: a run that should go on would crash for it. A process that no worker has started is
    left alone.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            _relay(number)


def _relay(number: int) -> None:
    outside = os.dup(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, outside), name=f"output {number}", daemon=True)
    thread.start()
    atexit.register(_end, number, outside, thread)


def _pass_on(reading: int, outside: int) -> None:
    heard = True
    while data := os.read(reading, 65536):
        while heard and data:
            try:
                data = data[os.write(outside, data) :]
            except OSError:
                heard = False


def _end(number: int, outside: int, thread: threading.Thread) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os.dup2(outside, number)  # closes the last writing end here: the thread comes to the end
    thread.join(_LAST_WORDS)
