"""How long answers take, measured on purpose: one request at a time, and in batches.

Figures differ from run to run by nature, so they go to an output of their own
on which nothing depends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["request_latency", "throughput", "timings"]

T = TypeVar("T")

#: Requests answered before the clock starts: the first ones allocate and warm the caches.
_WARM_UP = 10

#: Shortest time over which throughput is taken, in seconds.
_SPAN = 0.5


def request_latency(answer: Callable[[T], object], requests: Sequence[T], count: int) -> dict[str, float | int]:
    """Return the median and 99th percentile of ``count`` single requests, one after another.

    Args:
        answer: what answers one request.
        requests: at least one; asked in turn, from the start again when they run out.
        count: requests that are timed, after a short warm-up.

    Returns:
        ``p50_ms`` and ``p99_ms`` in milliseconds, and ``requests``.
    """
    for place in range(_WARM_UP):
        answer(requests[place % len(requests)])
    taken = np.empty(count, dtype=np.float64)
    for place in range(count):
        request = requests[place % len(requests)]
        started = time.perf_counter()
        answer(request)
        taken[place] = time.perf_counter() - started
    p50, p99 = np.percentile(taken * 1e3, [50, 99])
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "requests": count}


def throughput(scorer: Callable[[NDArray[np.int64]], object], batch: NDArray[np.int64]) -> float:
    """Return how many histories a second are scored, over repeats of one batch for half a second or more."""
    scorer(batch)
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < _SPAN or done == 0:
        scorer(batch)
        done += len(batch)
    return done / elapsed


def timings(
    answer: Callable[[T], object],
    requests: Sequence[T],
    scorer: Callable[[NDArray[np.int64]], object],
    batch: NDArray[np.int64],
    *,
    count: int,
    latency_threads: int,
    threads: int,
) -> dict[str, float | int | None]:
    """Return what goes into a timings file; figures are None where there is nothing to ask."""
    latency: dict[str, float | int | None] = {"p50_ms": None, "p99_ms": None, "requests": 0}
    per_second = None
    if len(requests) > 0 and len(batch) > 0:
        latency = {**request_latency(answer, requests, count)}
        per_second = round(throughput(scorer, batch), 1)
    return {**latency, "latency_threads": latency_threads, "batch_per_s": per_second, "threads": threads}
