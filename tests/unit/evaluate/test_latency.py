"""Timings: how many are taken, over what, and in which unit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from stillhouse.evaluate import latency


def test_requests_are_asked_in_turn_and_again_from_the_start() -> None:
    asked: list[str] = []
    found = latency.request_latency(asked.append, ["a", "b", "c"], 20)
    assert found["requests"] == 20
    assert len(asked) == 20 + latency._WARM_UP
    assert asked[latency._WARM_UP :][:4] == ["a", "b", "c", "a"]


def test_latency_is_in_milliseconds_and_p99_is_not_below_the_median() -> None:
    found = latency.request_latency(lambda _: time.sleep(0.002), ["a"], 20)
    assert 2.0 <= found["p50_ms"] <= found["p99_ms"] < 200.0


def test_throughput_counts_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_SPAN", 0.05)
    found = latency.throughput(lambda _: time.sleep(0.01), np.zeros((100, 3), np.int64))
    assert 1_000 < found <= 10_000


def test_nothing_to_ask_gives_none_and_still_states_the_threads() -> None:
    found = latency.timings(
        lambda _: None, [], lambda _: None, np.zeros((0, 3), np.int64), count=10, latency_threads=1, threads=2
    )
    assert found == {
        "p50_ms": None,
        "p99_ms": None,
        "requests": 0,
        "latency_threads": 1,
        "batch_per_s": None,
        "threads": 2,
    }
