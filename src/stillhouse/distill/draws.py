"""Which items stand for a position's tail: drawn so that nobody needs to write them down.

All items are laid out by how often people took them and cut into strata; each position
draws one item of every stratum. Which one is a hash of (seed, user, step), so batches,
shards and a resumed run cannot change it, and a reader works it out again instead of
reading it: a draw then costs the few bits of its score and none for its name. Strata
keep the draws apart: with the same number of independent ones a student ends further
from its teacher (benchmarks/store.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Strata", "strata_of", "tail_draws"]

Int = NDArray[np.int64]

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_NARROW_STRIDE = np.uint64(0x9E3779B9)
_NARROW_FIRST, _NARROW_SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


@dataclass(frozen=True)
class Strata:
    """All items in S strata, one after another."""

    items: NDArray[np.unsignedinteger]
    """[n_items]: every item index 1..n_items once, in the order in which the strata cut it."""
    ends: Int
    """int64 [S], ascending: stratum s holds ``items[ends[s - 1] : ends[s]]``, at least one of them."""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def sizes(self) -> Int:
        """int64 [S]: how many items each holds."""
        return np.diff(self.ends, prepend=0)

    @property
    def logq(self) -> NDArray[np.float32]:
        """float32 [S]: log-probability of an item of each stratum, where any of the S draws is as likely to be meant.

        The mean over a position's draws of f(item) / q(item) is an unbiased estimate of
        the sum of f over all items.
        """
        logq: NDArray[np.float32] = -np.log(self.sizes * np.float64(len(self))).astype(np.float32)
        return logq


def strata_of(counts: NDArray[np.integer], samples: int) -> Strata:
    """Cut all items into strata: popular items into narrower ones, because a tail's probability lies there.

    Items stand in descending order of their counts, equal ones by index. A stratum
    holds an equal share of the weights ``sqrt((1 + count_i) / sum (1 + count)) / norm + 1 / n_items``,
    as nearly as whole items allow.

    Args:
        counts: integers [n_items], how often each of the items 1..n_items was taken.
        samples: strata to make, at least 0; no more than there are items are made.

    >>> strata_of(np.array([0, 99, 9, 9]), 2)
    Strata(items=array([2, 3, 4, 1], dtype=uint8), ends=array([2, 4]))
    """
    n_items = len(counts)
    made = min(samples, n_items)
    order = np.argsort(-np.asarray(counts, np.int64), kind="stable")
    liked = np.sqrt(1.0 + np.asarray(counts, np.float64)[order])
    reached = np.cumsum(liked / liked.sum() + 1.0 / n_items) / 2.0
    ends = np.searchsorted(reached, np.arange(1, made + 1) / max(made, 1) - 1e-12) + 1
    number = np.arange(made)
    # At least one item in each, and the last one ends with the last item.
    ends = np.maximum.accumulate(ends - number) + number
    ends = np.minimum(ends, n_items - (made - 1 - number))
    return Strata((order + 1).astype(np.min_scalar_type(n_items)), ends.astype(np.int64))


def tail_draws(seed: int, users: Int, steps: Int, strata: Strata) -> NDArray[np.unsignedinteger]:
    """Return the item that each position draws of each stratum, [N, S] of the type of ``strata.items``.

    Every item of a stratum is as likely (to within its size / 2**32).

    Args:
        seed: at least 0.
        users: int64 [N], user index.
        steps: int64 [N], step t.
        strata: of all items.

    Source: the hash of a position is SplitMix64's (Steele, Lea, Flood, "Fast Splittable
    Pseudorandom Number Generators", OOPSLA 2014); that of a draw within it the 32-bit
    finaliser "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018).

    >>> strata = strata_of(np.arange(100), 8)
    >>> alone = tail_draws(1, np.array([4]), np.array([2]), strata)
    >>> together = tail_draws(1, np.array([9, 4]), np.array([2, 2]), strata)
    >>> bool((alone[0] == together[1]).all())
    True
    """
    state = _mix(np.array([seed], dtype=np.uint64))
    state = _mix(state ^ (users.astype(np.uint64) * _STRIDE))
    state = _mix(state ^ (steps.astype(np.uint64) * _STRIDE))
    counters = (np.arange(1, len(strata) + 1, dtype=np.uint64) * _NARROW_STRIDE).astype(np.uint32)
    numbers = _narrow_mix((state >> np.uint64(32)).astype(np.uint32)[:, None] + counters)
    sizes = strata.sizes.astype(np.uint64)
    places = (numbers * sizes >> np.uint64(32)) + (strata.ends.astype(np.uint64) - sizes)
    return np.take(strata.items, places.astype(np.intp))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection under which every input bit reaches every output bit."""
    state = state + _STRIDE
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def _narrow_mix(state: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """As `_mix`, of 32 bits; overwrites ``state``."""
    state ^= state >> np.uint32(16)
    state *= _NARROW_FIRST
    state ^= state >> np.uint32(15)
    state *= _NARROW_SECOND
    state ^= state >> np.uint32(16)
    return state
