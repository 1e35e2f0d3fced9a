"""Where the truth stands in a model's list: full ranking, every doubt against the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Seen", "rank_targets", "seen_from_rows", "top_k"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Seen = tuple[Ints, Ints]
"""Cells of a score matrix that are no candidates: (row numbers, item indices), of one length, repeats allowed."""

#: Bytes of what is made of the scores that are looked at together: it stays in the processor's cache.
_ROOM = 512 * 1024
#: Most columns a group when the best are looked for.
_STRIPES = 32
#: Bools that are counted together, as the bytes of one word.
_LANES = 8
#: Words whose bytes, 0 or 1 each, add up without running into each other.
_WORDS = 255


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
    parts, cells = _parts(len(scores), _rows(scores.shape, 1)), _Cells.of(seen)
    ranks = np.empty(len(targets), dtype=np.int64)

    def rank(mine: Sequence[slice]) -> None:
        width = -(-scores.shape[1] // _LANES) * _LANES
        lower = np.zeros((_rows(scores.shape, 1), width), dtype=bool)
        for rows in mine:
            ranks[rows] = _rank(scores[rows], targets[rows], cells.of_part(rows, scores.shape[1], width), lower)

    _share_out(parts, threads, rank)
    return ranks


def _rank(scores: NDArray[np.floating], targets: NDArray[np.integer], seen: Ints, lower: Mask) -> Ints:
    """Return the ranks of one part.

    Args:
        scores: as in `rank_targets`.
        targets: likewise.
        seen: what is filtered, as places of ``lower`` from its first.
        lower: room for a bool a score, a multiple of `_LANES` in a row; those beyond the scores are False.
    """
    rows, lower = np.arange(len(targets)), lower[: len(targets)]
    found = scores[rows, targets]
    # What is no candidate counts as lower. `lower` rather than `higher or equal`: NaN is neither, and has to count.
    np.less(scores, found[:, None], out=lower[:, : scores.shape[1]])
    lower[:, 0] = True
    lower.reshape(-1)[seen] = True
    lost = lower[rows, targets] | np.isnan(found) | np.isneginf(found)
    ranks: Ints = scores.shape[1] - _counts(lower)
    ranks[lost] = scores.shape[1]
    return ranks


def _counts(mask: Mask) -> Ints:
    """Return how many of each row are True: eight are added at a time, for an axis of bools is widened first."""
    words = mask.view(np.uint64)
    sums = np.add.reduceat(words, np.arange(0, words.shape[1], _WORDS), axis=1)
    counts: Ints = sums.view(np.uint8).sum(axis=1, dtype=np.int64)
    return counts


def top_k(
    scores: NDArray[np.floating],
    k: int,
    seen: Seen | Sequence[NDArray[np.integer]] | None = None,
    *,
    threads: int = 1,
) -> Ints:
    """Return each row's ``k`` best candidates, best first.

    Args:
        scores: float [n, n_items + 1]; column 0 is ignored, NaN and -inf are never recommended.
        k: ≥ 1; above the number of items it gives all of them.
        seen: as in `rank_targets`.
        threads: likewise.

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
    width, cells = -(-columns // stripes) * stripes, _Cells.of(seen)

    def list_best(mine: Sequence[slice]) -> None:
        room = np.full((rows, width), -np.inf, scores.dtype)
        for part in mine:
            masked = room[: part.stop - part.start]
            masked[:, :columns] = scores[part]
            masked[:, 0] = -np.inf
            masked.reshape(-1)[cells.of_part(part, columns, width)] = -np.inf
            _best(masked, stripes, best[part])

    _share_out(_parts(len(scores), rows), threads, list_best)
    return best


def _best(masked: NDArray[np.floating], stripes: int, best: Ints) -> None:
    """Fill ``best`` [rows, k] with the k best columns of ``masked`` (-inf: no candidate), best first.

    The highest of each of many groups of columns are found first. The k-th highest of
    those is a bound: k columns reach it, so that nothing below it can be among the best.

    Args:
        masked: float [rows, columns]; ``stripes`` divides the columns. NaN in it becomes -inf.
        stripes: columns a group; there are at least k groups.
        best: int64 [rows, k] of zeros.
    """
    k = best.shape[1]
    highest = masked.reshape(len(masked), stripes, -1).max(axis=1)
    if np.isnan(highest).any():
        # The larger of a score and -inf is the score, and -inf where it is NaN.
        np.fmax(masked, -np.inf, out=masked)
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


def _parts(rows: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _share_out(parts: Sequence[slice], threads: int, work: Callable[[Sequence[slice]], None]) -> None:
    """Do ``work`` on all ``parts``, by ``threads`` threads where there are parts for more than one."""
    if threads == 1 or len(parts) < 2:
        work(parts)
        return
    shares = [parts[first::threads] for first in range(min(threads, len(parts)))]
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(work, shares))


@dataclass(frozen=True, eq=False)
class _Cells:
    """What is seen, in order of rows."""

    rows: Ints
    items: Ints

    @classmethod
    def of(cls, seen: Seen | Sequence[NDArray[np.integer]] | None) -> _Cells:
        if seen is None:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        rows, items = seen if isinstance(seen, tuple) else seen_from_rows(seen)
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            rows, items = rows[order], items[order]
        return cls(rows, items)

    def of_part(self, part: slice, columns: int, width: int) -> Ints:
        """Return the places of the cells of ``part`` in a flat table of its rows, ``width`` places each.

        Raises:
            IndexError: an item is none of the ``columns``; it would be another row's.
        """
        those = slice(*np.searchsorted(self.rows, [part.start, part.stop]).tolist())
        items = self.items[those]
        # Without a sign, what is below 0 is the largest of all: one pass finds either end.
        if len(items) and items.view(np.uint64).max() >= columns:
            raise IndexError(f"seen items must be 0..{columns - 1}, found {items.min()}..{items.max()}")
        places: Ints = self.rows[those] * width
        places += items
        places -= part.start * width
        return places
