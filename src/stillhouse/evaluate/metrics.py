"""Ranking metrics from ranks, and what the lists look like as a whole.

A row is one target: one user, one item that the user took, and the rank that a
model gave it (`stillhouse.evaluate.ranking`). A user may have several rows (in
a time window) or one (leave-one-out). **Every figure is the mean over users of
the user's own figure**, so that a user with many events counts once; with one
row a user that is the plain mean. A rank above ``n_items`` is a miss and scores
0 in everything, whatever ``k`` is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["coverage", "hits", "ndcg", "per_user", "popularity_bias", "ranking_metrics", "reciprocal_ranks"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def hits(ranks: Ints, k: int, n_items: int) -> Floats:
    """Return 1.0 where the target stands among the first ``k``, else 0.0.

    Args:
        ranks: int64 [n], 1-based.
        k: the cut-off; above ``n_items`` it still counts no miss.
        n_items: ranks above it are misses.

    >>> hits(np.array([1, 10, 11]), 10, 100)
    array([1., 1., 0.])
    """
    return (ranks <= min(k, n_items)).astype(np.float64)


def ndcg(ranks: Ints, k: int, n_items: int) -> Floats:
    """Return each row's NDCG at ``k``: ``1 / log2(1 + rank)`` within the cut-off, else 0.

    One item is relevant, so the ideal DCG is 1 and nothing is left to divide by.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002.

    >>> ndcg(np.array([1, 3, 11]), 10, 100)
    array([1. , 0.5, 0. ])
    """
    return np.where(ranks <= min(k, n_items), 1.0 / np.log2(1.0 + ranks), 0.0)


def reciprocal_ranks(ranks: Ints, n_items: int) -> Floats:
    """Return ``1 / rank`` over the whole list, 0 for a miss.

    >>> reciprocal_ranks(np.array([1, 4, 11]), 10)
    array([1.  , 0.25, 0.  ])
    """
    return np.where(ranks <= n_items, 1.0 / ranks, 0.0)


def per_user(values: Floats, users: Ints) -> tuple[Ints, Floats]:
    """Return the users in order, and the mean of each one's ``values``.

    Args:
        values: float64 [n].
        users: int64 [n] of user indices, in any order.

    >>> per_user(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 3]))
    (array([3, 7]), array([1. , 0.5]))
    """
    whose = _Users(users)
    return whose.unique, whose.means(values)


class _Users:
    """Which rows are of one user."""

    def __init__(self, users: Ints) -> None:
        self.unique, self._place, self._counts = np.unique(users, return_inverse=True, return_counts=True)

    def means(self, values: Floats) -> Floats:
        """Return the mean of each user's ``values``, float64 [unique users]."""
        means: Floats = np.bincount(self._place, weights=values, minlength=len(self.unique)) / self._counts
        return means


def ranking_metrics(users: Ints, ranks: Ints, ks: Sequence[int], n_items: int) -> dict[str, float | int | None]:
    """Return every ranking metric of one split.

    ``recall_at_k`` is a user's share of targets among the first k, ``hr_at_k``
    (hit rate) whether any of them is; with one target a user they are equal.

    Returns:
        ``hr_at_k``, ``ndcg_at_k``, ``recall_at_k`` for each k, ``mrr``, and the
        counts ``users`` and ``targets``. Without any row every figure is None.
    """
    whose = _Users(users)
    found: dict[str, float | int | None] = {"users": len(whose.unique), "targets": len(ranks)}
    for k in sorted(set(ks)):
        share = whose.means(hits(ranks, k, n_items))
        found[f"hr_at_{k}"] = _mean((share > 0).astype(np.float64))
        found[f"recall_at_{k}"] = _mean(share)
        found[f"ndcg_at_{k}"] = _mean(whose.means(ndcg(ranks, k, n_items)))
    found["mrr"] = _mean(whose.means(reciprocal_ranks(ranks, n_items)))
    return found


def coverage(top: NDArray[np.integer], n_items: int) -> float | None:
    """Return the share of the catalogue that stands in at least one list.

    Args:
        top: integer [n, k] of item indices; 0 is an empty place.
        n_items: items in the catalogue; an empty catalogue gives None, as do no lists.

    >>> coverage(np.array([[1, 2], [2, 0]]), 4)
    0.5
    """
    if n_items == 0 or top.size == 0:
        return None
    shown = np.zeros(n_items + 1, dtype=bool)
    shown[top.ravel()] = True
    return float(np.count_nonzero(shown[1:]) / n_items)


def popularity_bias(
    top: NDArray[np.integer], profile: Floats, users: Ints, popularity: NDArray[np.integer]
) -> float | None:
    """Return how much more popular the lists are than what the users took themselves.

    The popularity lift ``(GAP_r - GAP_p) / GAP_p``: GAP_r is the mean over users of
    the mean popularity of the recommended items, GAP_p the same of the items in
    the users' histories. 0: as popular as the users' own taste; 1: twice as popular.

    Args:
        top: integer [n, k] of item indices; 0 is an empty place.
        profile: float64 [n], the mean popularity of the row's history; NaN where it is empty (such rows are left out).
        users: int64 [n] of user indices.
        popularity: integer [n_items + 1], interactions among training rows.

    Returns:
        The lift, or None where no row has both a list and a history.

    Source: Abdollahpouri, Mansoury, Burke, Mobasher, The connection between
    popularity bias, calibration, and fairness in recommendation, 2020.
    """
    places = np.count_nonzero(top, axis=1)
    rows = (places > 0) & ~np.isnan(profile)
    if not rows.any():
        return None
    total = np.where(top > 0, popularity[top], 0)[rows].sum(axis=1)
    whose = _Users(users[rows])
    recommended, taken = whose.means(total / places[rows]).mean(), whose.means(profile[rows]).mean()
    return float((recommended - taken) / taken) if taken > 0 else None


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
