"""Putting rows in order by whole numbers, several times as fast as NumPy's own stable sort.

NumPy sorts plain 64-bit integers with the processor's vector instructions and
finds an order (``argsort``) an order of magnitude more slowly. Here key and
place share one integer, so that sorting it gives the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["is_rising", "stable_order"]


def stable_order(keys: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the order that sorts ``keys``, equal ones as they stand: ``np.argsort(keys, kind="stable")``.

    Args:
        keys: whole numbers of at most 64 bits, signed, [n].

    >>> stable_order(np.array([7, -2, 7, 0])).tolist()
    [1, 3, 0, 2]
    """
    if not len(keys):
        return np.zeros(0, np.int64)
    low, bits = int(keys.min()), (len(keys) - 1).bit_length()
    if (int(keys.max()) - low).bit_length() + bits > 63:
        return np.argsort(keys, kind="stable")
    packed = keys.astype(np.int64)
    packed -= low
    packed <<= bits
    packed |= np.arange(len(keys), dtype=np.int64)
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def is_rising(values: npt.NDArray[Any]) -> bool:
    """Say whether no value is smaller than the one before it.

    >>> is_rising(np.array([1, 1, 2])), is_rising(np.array([2, 1]))
    (True, False)
    """
    return bool((values[1:] >= values[:-1]).all())
