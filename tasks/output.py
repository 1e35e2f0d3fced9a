"""What a flow on a worker prints, and what its stages print: a pipe to the worker, who may die before them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time

__all__ = ["outlive_reader"]

#: Seconds for which the end of a process waits for the last of its output to be passed on.
_LAST_WORDS = 5.0

#: Per stream: its number, what it was before, and who passes on to that.
_relays: list[tuple[int, int, threading.Thread]] = []


def outlive_reader() -> None:
    """Let this process and its children print on where whoever reads that has died; what nobody reads is dropped.

    Without this, the first line after the worker's death is a BrokenPipeError in a stage, and a SystemExit where
    Prefect's own log is printed: a run that should go on would crash for it. A process that no worker has started is
    left alone. What a process prints in the very moment in which a signal ends it may be lost.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ and not _relays:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            _relays.append(_relay(number))
        atexit.register(_end)


def _relay(number: int) -> tuple[int, int, threading.Thread]:
    outside = os.dup(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, outside), name=f"output {number}", daemon=True)
    thread.start()
    return number, outside, thread


def _pass_on(reading: int, outside: int) -> None:
    heard = True
    while data := os.read(reading, 65536):
        while heard and data:
            try:
                data = data[os.write(outside, data) :]
            except OSError:
                heard = False


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for number, outside, _ in _relays:
        os.dup2(outside, number)  # closes the last writing end here: the thread comes to the end
    until = time.monotonic() + _LAST_WORDS
    for _, _, thread in _relays:
        thread.join(max(0.0, until - time.monotonic()))
