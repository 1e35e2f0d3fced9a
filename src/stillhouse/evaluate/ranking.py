"""Where the truth stands in a model's list: full ranking, every doubt against the model."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Seen", "rank_targets", "seen_from_rows", "top_k"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Seen = tuple[Ints, Ints]
"""Cells of a score matrix that are no candidates: (row numbers, item indices), of one length, repeats allowed."""
_Part = tuple[slice, Seen | None]

#: Bytes of what is made of the scores that are looked at together: it stays in the processor's cache.
_ROOM = 512 * 1024
#: Most columns a group when the best are looked for.
_STRIPES = 32


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
    *,
    threads: int = 1,
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
        threads: ≥ 1; rows are shared out among them, the ranks are the same.

    Returns:
        int64 [n], 1..n_items + 1. The last value is a miss: the target is unknown,
        its score is NaN or -inf (the model cannot score it), or it is itself filtered.

    >>> rank_targets(np.array([[9.0, 1.0, 3.0, 2.0]]), np.array([3]))
    array([2])
    >>> rank_targets(np.array([[9.0, 1.0, 3.0, 2.0]]), np.array([3]), [np.array([2])])
    array([1])
    """
    parts = _parts(scores.shape, seen, _rows(scores.shape, 1))
    ranks = np.empty(len(targets), dtype=np.int64)

    def rank(mine: Sequence[_Part]) -> None:
        lower = np.empty((_rows(scores.shape, 1), scores.shape[1]), dtype=bool)
        for rows, cells in mine:
            ranks[rows] = _rank(scores[rows], targets[rows], cells, lower)

    if threads == 1 or len(parts) < 2:
        rank(parts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rank, [parts[first::threads] for first in range(threads)]))
    return ranks


def _rank(scores: NDArray[np.floating], targets: NDArray[np.integer], seen: Seen | None, lower: Mask) -> Ints:
    """Return the ranks of one part; ``lower`` is room for a bool a score."""
    rows, lower = np.arange(len(targets)), lower[: len(targets)]
    found = scores[rows, targets]
    # What is no candidate counts as lower. `lower` rather than `higher or equal`: NaN is neither, and has to count.
    np.less(scores, found[:, None], out=lower)
    lower[:, 0] = True
    if seen is not None:
        lower[seen] = True
    # Row by row: counting along an axis widens every bool to eight bytes first.
    below = np.fromiter(map(np.count_nonzero, lower), np.int64, len(targets))
    lost = lower[rows, targets] | np.isnan(found) | np.isneginf(found)
    ranks: Ints = scores.shape[1] - below
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
    places = min(k, scores.shape[1] - 1)
    best = np.zeros((len(scores), places), dtype=np.int64)
    if places == 0:
        return best
    rows, columns = _rows(scores.shape, scores.itemsize), scores.shape[1]
    stripes = max(1, min(_STRIPES, columns // (4 * places)))
    room = np.full((rows, -(-columns // stripes) * stripes), -np.inf, scores.dtype)
    for part, cells in _parts(scores.shape, seen, rows):
        masked = room[: part.stop - part.start]
        # The larger of a score and -inf is the score, and -inf where it is NaN.
        np.fmax(scores[part], -np.inf, out=masked[:, :columns])
        masked[:, 0] = -np.inf
        if cells is not None:
            masked[cells] = -np.inf
        _best(masked, stripes, best[part])
    return best


def _best(masked: NDArray[np.floating], stripes: int, best: Ints) -> None:
    """Fill ``best`` [rows, k] with the k best columns of ``masked`` (-inf: no candidate), best first.

    The highest of each of many groups of columns are found first. The k-th highest of
    those is a bound: k columns reach it, so that nothing below it can be among the best.

    Args:
        masked: float [rows, columns], no NaN; ``stripes`` divides the columns.
        stripes: columns a group; there are at least k groups.
        best: int64 [rows, k] of zeros.
    """
    k = best.shape[1]
    highest = masked.reshape(len(masked), stripes, -1).max(axis=1)
    bound = np.partition(highest, -k, axis=1)[:, -k]
    reach = masked >= np.maximum(bound, np.finfo(masked.dtype).min)[:, None]
    row, column = np.divmod(np.flatnonzero(reach), masked.shape[1])
    # Stable, from columns in order: equal scores keep the order of their index.
    order = np.lexsort((-masked[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < k
    best[row[kept], place[kept]] = column[kept]


def _rows(shape: tuple[int, ...], size: int) -> int:
    """Return how many rows of a score matrix are looked at together, ``size`` bytes a score."""
    return max(1, min(shape[0], _ROOM // (size * shape[1])))


def _parts(shape: tuple[int, ...], seen: Seen | Sequence[NDArray[np.integer]] | None, step: int) -> list[_Part]:
    """Return each part's rows, ``step`` of them, and its seen cells with row numbers counted from its first."""
    parts = [slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]
    if seen is None:
        return [(rows, None) for rows in parts]
    row, item = seen if isinstance(seen, tuple) else seen_from_rows(seen)
    if (row[1:] < row[:-1]).any():
        order = np.argsort(row, kind="stable")
        row, item = row[order], item[order]
    bounds = np.searchsorted(row, [rows.start for rows in parts] + [shape[0]])
    cells = [slice(first, last) for first, last in pairwise(bounds.tolist())]
    return [(rows, (row[those] - rows.start, item[those])) for rows, those in zip(parts, cells, strict=True)]
