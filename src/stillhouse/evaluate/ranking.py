"""Where the truth stands in a model's list: full ranking, every doubt against the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Seen", "rank_targets", "seen_from_rows", "top_k"]

Ints = NDArray[np.int64]
Seen = tuple[Ints, Ints]
"""Cells of a score matrix that are no candidates: (row numbers, item indices), of one length, repeats allowed."""


def seen_from_rows(rows: Sequence[NDArray[np.integer]]) -> Seen:
    """Return the items that each row has already seen, in the form that ranking takes.

    Args:
        rows: one array of item indices (≥ 0; 0 is padding and harmless) a row, of any lengths.

    >>> seen_from_rows([np.array([2, 3]), np.array([], dtype=np.int64), np.array([1])])
    (array([0, 0, 2]), array([2, 3, 1]))
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    items = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else np.empty(0, np.int64)
    return np.repeat(np.arange(len(rows), dtype=np.int64), lengths), items


def rank_targets(
    scores: NDArray[np.floating],
    targets: NDArray[np.integer],
    seen: Seen | Sequence[NDArray[np.integer]] | None = None,
) -> Ints:
    """Return the 1-based place of each row's target among all candidates.

    Candidates are the items 1..n_items without the row's ``seen`` ones. An item
    stands before the target when its score is higher, equal (ties count against
    the model) or NaN.

    Args:
        scores: float [n, n_items + 1]; column 0 (padding) is ignored.
        targets: integer [n], 0..n_items; 0 is an item that the vocabulary lacks.
        seen: items that are filtered: the pair of `seen_from_rows`, or one array of
            item indices a row; ``None`` where people take items again, so that nothing is filtered.

    Returns:
        int64 [n], 1..n_items + 1. The last value is a miss: the target is unknown,
        its score is NaN or -inf (the model cannot score it), or it is itself filtered.

    >>> rank_targets(np.array([[9.0, 1.0, 3.0, 2.0]]), np.array([3]))
    array([2])
    >>> rank_targets(np.array([[9.0, 1.0, 3.0, 2.0]]), np.array([3]), [np.array([2])])
    array([1])
    """
    rows = np.arange(len(targets))
    found = scores[rows, targets]
    # `not lower` rather than `higher or equal`: NaN is neither, and has to count.
    before = ~(scores < found[:, None])
    before[:, 0] = False
    lost = (targets == 0) | np.isnan(found) | np.isneginf(found)
    if seen is not None:
        cells = seen if isinstance(seen, tuple) else seen_from_rows(seen)
        before[cells] = False
        lost |= ~before[rows, targets]
    ranks: Ints = np.asarray(np.count_nonzero(before, axis=1), dtype=np.int64)
    ranks[lost] = scores.shape[1]
    return ranks


def top_k(
    scores: NDArray[np.floating],
    k: int,
    seen: Seen | Sequence[NDArray[np.integer]] | None = None,
) -> Ints:
    """Return each row's ``k`` best candidates, best first.

    Args:
        scores: float [n, n_items + 1]; column 0 is ignored, NaN and -inf are never recommended.
        k: ≥ 1; above the number of items it gives all of them.
        seen: as in `rank_targets`.

    Returns:
        int64 [n, min(k, n_items)] of item indices; equal scores stand in order of
        their index; 0 where a row has fewer candidates than places.

    >>> top_k(np.array([[9.0, 1.0, 3.0, 3.0]]), 2)
    array([[2, 3]])
    """
    masked = np.where(np.isnan(scores), -np.inf, scores)
    masked[:, 0] = -np.inf
    if seen is not None:
        masked[seen if isinstance(seen, tuple) else seen_from_rows(seen)] = -np.inf
    places = min(k, scores.shape[1] - 1)
    if places == 0:
        return np.zeros((len(scores), 0), dtype=np.int64)
    # Sorting the indices makes equal scores keep their order in the stable sort below.
    chosen = np.sort(np.argpartition(-masked, places - 1, axis=1)[:, :places], axis=1)
    lowest = np.take_along_axis(masked, chosen, axis=1).min(axis=1, initial=np.inf)
    # Where equal scores straddle the cut, a partition keeps any of them: sort those rows whole.
    for row in np.flatnonzero(np.count_nonzero(masked >= lowest[:, None], axis=1) > places):
        chosen[row] = np.sort(np.argsort(-masked[row], kind="stable")[:places])
    values = np.take_along_axis(masked, chosen, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(chosen, order, axis=1)
    best[np.isneginf(np.take_along_axis(values, order, axis=1))] = 0
    return np.asarray(best, dtype=np.int64)
