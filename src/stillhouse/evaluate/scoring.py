"""Scores every target of a split with one model, in batches, as that model would serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.sequences import Sequences, Split
from stillhouse.evaluate.ranking import Seen, rank_targets, top_k
from stillhouse.reporting import Reporter

__all__ = ["History", "Scored", "Scorer", "score_split"]

Ints = NDArray[np.int64]

Scorer = Callable[[Ints], NDArray[np.floating]]
"""Padded histories int64 [n, length] (right-padded with 0) → scores float [n, n_items + 1] of tonight's items."""


@dataclass(frozen=True, eq=False)
class History:
    """What stands before each target: slices of one flat array of item indices."""

    items: NDArray[np.integer]
    """Item indices ≥ 1, integer [n_events]."""
    start: Ints
    """First event of each row, int64 [n]."""
    stop: Ints
    """One past the last event of each row, int64 [n]."""

    @classmethod
    def of(cls, sequences: Sequences, targets: Ints) -> History:
        """Return the histories of ``targets`` (rows of `Sequences.targets`)."""
        start = np.asarray(sequences.offsets)[targets[:, 0]]
        return cls(sequences.items, start, start + targets[:, 1])

    def mapped(self, index: Ints) -> History:
        """Return the same histories in another vocabulary; events that it lacks are left out.

        Args:
            index: int64, the other vocabulary's index of each of this one's items; 0 where it lacks one.
        """
        other = index[self.items]
        kept = other > 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return History(other[kept], before[self.start], before[self.stop])

    def padded(self, rows: slice, width: int) -> Ints:
        """Return the most recent ``width`` events of ``rows``, oldest first, zeros on the right, int64 [n, width]."""
        start, stop = self.start[rows], self.stop[rows]
        taken = np.minimum(stop - start, width)
        steps = np.arange(width, dtype=np.int64)
        real = steps < taken[:, None]
        padded = np.zeros(real.shape, dtype=np.int64)
        padded[real] = self.items[((stop - taken)[:, None] + steps)[real]]
        return padded

    def seen(self, rows: slice) -> Seen:
        """Return every event of ``rows`` as the cells that ranking filters."""
        start, lengths = self.start[rows], self.stop[rows] - self.start[rows]
        row = np.repeat(np.arange(len(start), dtype=np.int64), lengths)
        first = np.cumsum(lengths) - lengths
        place = np.arange(len(row), dtype=np.int64) + np.repeat(start - first, lengths)
        return row, np.asarray(self.items[place], dtype=np.int64)

    def means(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the mean of ``values[item]`` over each row's events, float64 [n]; NaN where there are none."""
        sums = np.concatenate([[0.0], np.cumsum(values[self.items], dtype=np.float64)])
        lengths = self.stop - self.start
        total = sums[self.stop] - sums[self.start]
        return np.where(lengths > 0, total / np.maximum(lengths, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Scored:
    """What one model did on one split, a row a target, in the order of `Sequences.targets`."""

    users: Ints
    """User indices, int64 [n]."""
    items: Ints
    """The targets' item indices, int64 [n]; 0 is an item that the vocabulary lacks."""
    lengths: Ints
    """Events in each row's history, int64 [n]."""
    ranks: Ints
    """1-based ranks, int64 [n]; n_items + 1 is a miss."""
    top: Ints
    """The first k of each row's list, int64 [n, k]; 0 is an empty place."""


def score_split(
    sequences: Sequences,
    split: Split,
    scorer: Scorer,
    *,
    length: int,
    k: int,
    batch_size: int,
    repeat_items: bool,
    fallback: NDArray[np.floating] | None = None,
    index: Ints | None = None,
    reporter: Reporter | None = None,
    threads: int = 1,
) -> Scored:
    """Rank every target of ``split`` among all items, with the items already seen filtered.

    Args:
        sequences: tonight's sequences.
        split: ``valid``, ``test`` or ``window``.
        scorer: the model, giving scores of tonight's items in tonight's order; -inf where it cannot score one.
        length: width of the histories that the scorer is given (the most recent events).
        k: length of the lists that are kept.
        batch_size: rows scored at once.
        repeat_items: whether people take items again; if so nothing is filtered.
        fallback: float [n_items + 1], the scores of a row whose history is empty (what serving
            answers there); ``None`` asks the scorer.
        index: the scorer's index of each of tonight's items, int64 [n_items + 1], where its
            vocabulary is another: its histories are given in its own indices, without what it lacks.
        reporter: draws the progress.
        threads: ≥ 1, that rank a batch once it is scored; the result is the same.

    Returns:
        One row a target; no rows for an empty split.
    """
    targets = np.asarray(sequences.targets(split))
    history = History.of(sequences, targets)
    asked = history if index is None else history.mapped(index)
    ranks = np.empty(len(targets), dtype=np.int64)
    top = np.zeros((len(targets), min(k, sequences.n_items)), dtype=np.int64)

    def score(rows: slice) -> None:
        padded = asked.padded(rows, length)
        scores = _scores(scorer, padded, fallback)
        seen = None if repeat_items else history.seen(rows)
        ranks[rows] = rank_targets(scores, targets[rows, 2], seen, threads=threads)
        top[rows] = top_k(scores, k, seen, threads=threads)

    batches = [slice(first, first + batch_size) for first in range(0, len(targets), batch_size)]
    if reporter is None:
        for rows in batches:
            score(rows)
    else:
        with reporter.progress(f"scoring {split}", len(batches)) as bar:
            for rows in batches:
                score(rows)
                bar.advance()
    return Scored(targets[:, 0], targets[:, 2], targets[:, 1], ranks, top)


def _scores(scorer: Scorer, padded: Ints, fallback: NDArray[np.floating] | None) -> NDArray[np.floating]:
    empty = ~padded.any(axis=1)
    if fallback is None or not empty.any():
        return scorer(padded)
    scores = np.broadcast_to(fallback.astype(np.float32), (len(padded), len(fallback))).copy()
    if not empty.all():
        scores[~empty] = scorer(padded[~empty])
    return scores
