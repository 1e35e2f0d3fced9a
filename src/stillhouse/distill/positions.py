"""Which positions of the training rows carry soft targets, and what was seen at each.

A position (u, t) has seen the events 0..t of user u and is to name event t + 1.
Everything here works on whole arrays: no loop over users or positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows", "row_digests", "seen_pairs", "spread", "windows"]

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Rows of users with positions, in user order; a user's rows follow one another, each where the one before ends.

    A row that does not begin with its user's first event is as long as rows may be.
    """

    users: Int
    """int64 [R]: user index."""
    first: Int
    """int64 [R]: the first position's step."""
    counts: Int
    """int64 [R]: positions, at least 1; their steps are first..first + counts - 1."""

    def __len__(self) -> int:
        return int(self.users.shape[0])

    def part(self, start: int, stop: int) -> Windows:
        """Return rows ``start``..``stop`` - 1."""
        return Windows(self.users[start:stop], self.first[start:stop], self.counts[start:stop])

    def some(self, rows: NDArray[np.bool_]) -> Windows:
        """Return the rows where bool [R] ``rows`` is true."""
        return Windows(self.users[rows], self.first[rows], self.counts[rows])


def windows(train_length: NDArray[np.integer], length: int, *, whole: bool = False) -> Windows:
    """Return the windows of all users: the last ``length`` input positions of their training rows, or all of them.

    A user with fewer than 2 training rows has nothing to predict and no window.

    Args:
        train_length: integer [n_users], the first so many events of a user are training rows.
        length: most positions a row, at least 1.
        whole: cut the positions before the last ones into rows too, from the end.

    >>> found = windows(np.array([0, 1, 2, 9]), 3)
    >>> found.users.tolist(), found.first.tolist(), found.counts.tolist()
    ([2, 3], [0, 5], [1, 3])
    >>> found = windows(np.array([0, 1, 2, 9]), 3, whole=True)
    >>> found.users.tolist(), found.first.tolist(), found.counts.tolist()
    ([2, 3, 3, 3], [0, 0, 2, 5], [1, 2, 3, 3])
    """
    inputs = np.asarray(train_length, dtype=np.int64) - 1
    users = np.flatnonzero(inputs > 0).astype(np.int64)
    rows = -(-inputs[users] // length) if whole else np.ones_like(users)
    left = np.repeat(np.cumsum(rows), rows) - 1 - np.arange(rows.sum())
    users = np.repeat(users, rows)
    ends = inputs[users] - left * length
    counts = np.minimum(ends, length)
    return Windows(users, ends - counts, counts)


def spread(starts: Int, counts: Int) -> tuple[Int, Int]:
    """Return (row, value) of every value of the runs ``starts[i] .. starts[i] + counts[i] - 1``, one run after another.

    >>> [part.tolist() for part in spread(np.array([5, 9]), np.array([2, 1]))]
    [[0, 0, 1], [5, 6, 9]]
    """
    rows = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    ends = np.cumsum(counts)
    values = np.arange(len(rows), dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return rows, values


def seen_pairs(items: NDArray[np.integer], offsets: NDArray[np.integer], users: Int, steps: Int) -> tuple[Int, Int]:
    """Return which items each position has already seen, as (row, item) pairs.

    Args:
        items: integer [n_events], item index of each event, users one after another.
        offsets: int64 [n_users + 1], where each user's events start.
        users: int64 [N], user index of each position.
        steps: int64 [N], step t of each position, counted from the user's first event.

    Returns:
        rows int64 [P] (0..N-1, ascending) and items int64 [P]: the events 0..t of
        each position. An item that a user took twice stands twice.
    """
    rows, events = spread(np.asarray(offsets)[users].astype(np.int64), steps + 1)
    return rows, items[events].astype(np.int64)


def row_digests(
    items: NDArray[np.integer], offsets: NDArray[np.integer], train_length: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return one number for each user's training rows, int64 [n_users]: another one where they are others.

    Two different lists have the same number by a chance of 2**-64.

    Args:
        items: integer [n_events], item index of each event, users one after another.
        offsets: int64 [n_users + 1], where each user's events start.
        train_length: integer [n_users], the first so many events of a user are training rows.

    Source: SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014) of each item and its place, summed.

    >>> one, swapped, longer = row_digests(np.array([3, 1, 1, 3, 3, 1, 2]), np.array([0, 2, 4, 7]), np.array([2, 2, 3]))
    >>> bool(one == swapped), bool(one == longer)
    (False, False)
    """
    starts, lengths = np.asarray(offsets, np.int64)[:-1], np.asarray(train_length, np.int64)
    rows, events = spread(starts, lengths)
    places = (events - starts[rows] + 1).astype(np.uint64)
    mixed = (places << np.uint64(32)) + np.asarray(items)[events].astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(31)))])
    ends = np.cumsum(lengths)
    digests: NDArray[np.int64] = (sums[ends] - sums[ends - lengths]).view(np.int64)
    return digests
