"""Is one model as good as another on the same users? A bootstrap over users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["common_rows", "interval", "lower_bound"]

Ints = NDArray[np.int64]

#: Numbers drawn at once: 16 MB, whatever the number of users is.
_DRAWS = 2_000_000


def common_rows(users_a: Ints, items_a: Ints, users_b: Ints, items_b: Ints) -> tuple[Ints, Ints]:
    """Return the positions, in a and in b, of the targets that both hold.

    A target is a user and an item; where a user has the same item as a target
    several times, the first stands with the first, the second with the second.

    Args:
        users_a: int64 [n], ≥ 0.
        items_a: int64 [n], ≥ 0.
        users_b: int64 [m], ≥ 0.
        items_b: int64 [m], ≥ 0.

    Returns:
        Two int64 arrays of one length, in order of user, item and occurrence.
    """
    times_a, times_b = _occurrence(users_a, items_a), _occurrence(users_b, items_b)
    n_items = 1 + max(items_a.max(initial=0), items_b.max(initial=0))
    n_times = 1 + max(times_a.max(initial=0), times_b.max(initial=0))
    key_a, key_b = (users_a * n_items + items_a) * n_times + times_a, (users_b * n_items + items_b) * n_times + times_b
    _, rows_a, rows_b = np.intersect1d(key_a, key_b, assume_unique=True, return_indices=True)
    return rows_a, rows_b


def lower_bound(differences: NDArray[np.float64], confidence: float, resamples: int, seed: int) -> float:
    """Return a one-sided lower confidence bound of the mean difference.

    The percentile bootstrap: users are drawn with replacement, as many as there
    are, ``resamples`` times; the bound is the (1 - confidence) quantile of the means.

    Args:
        differences: float64 [n], one a user, n ≥ 1: candidate minus champion.
        confidence: of the one-sided bound, in (0.5, 1).
        resamples: ≥ 1.
        seed: the same seed gives the same bound.

    Raises:
        ValueError: there is no user.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    >>> lower_bound(np.full(50, 0.25), 0.95, 200, seed=1)
    0.25
    """
    # "lower" takes one of the means rather than a value between two: never above the quantile.
    return float(np.quantile(_means(differences, resamples, seed), 1.0 - confidence, method="lower"))


def interval(differences: NDArray[np.float64], confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Return the two-sided percentile bootstrap interval of the mean difference, with the arguments of `lower_bound`.

    >>> interval(np.full(50, 0.25), 0.95, 200, seed=1)
    (0.25, 0.25)
    """
    means, outside = _means(differences, resamples, seed), (1.0 - confidence) / 2
    low = np.quantile(means, outside, method="lower")
    return float(low), float(np.quantile(means, 1.0 - outside, method="higher"))


def _means(differences: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the means of ``resamples`` draws of users, float64 [resamples]."""
    n = len(differences)
    if n == 0:
        raise ValueError("a bound needs at least one user, got none")
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS // n)
    means = [
        differences[generator.integers(0, n, (min(at_once, resamples - done), n), dtype=np.int32)].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    return np.concatenate(means)


def _occurrence(users: Ints, items: Ints) -> Ints:
    """Return how many earlier rows hold the same user and item."""
    order = np.lexsort((items, users))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    places = np.arange(len(order))
    times = np.empty(len(order), dtype=np.int64)
    times[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return times
