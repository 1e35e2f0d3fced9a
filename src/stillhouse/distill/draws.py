"""Random numbers that depend on what they are for, not on when they are drawn.

Each position's numbers are a hash of (seed, user, step), so that batches, shards
and a resumed run cannot change them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["uniforms"]

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniforms(seed: int, users: NDArray[np.int64], steps: NDArray[np.int64], samples: int) -> NDArray[np.float64]:
    """Return ``samples`` numbers in [0, 1) for each position, float64 [N, samples].

    Args:
        seed: at least 0.
        users: int64 [N].
        steps: int64 [N].
        samples: at least 0.

    Source: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014), used as a counter-based generator.

    >>> alone = uniforms(1, np.array([4]), np.array([2]), 3)
    >>> together = uniforms(1, np.array([9, 4]), np.array([2, 2]), 3)
    >>> bool((alone[0] == together[1]).all())
    True
    """
    state = _mix(np.array([seed], dtype=np.uint64))
    state = _mix(state ^ (users.astype(np.uint64) * _STRIDE))
    state = _mix(state ^ (steps.astype(np.uint64) * _STRIDE))
    counters = np.arange(1, samples + 1, dtype=np.uint64) * _STRIDE
    return (_mix(state[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection under which every input bit reaches every output bit."""
    state = state + _STRIDE
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
