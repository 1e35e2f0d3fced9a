"""Which part of the users a user belongs to, for models that score a user without having learnt from that user."""

from __future__ import annotations

from torch import Tensor

__all__ = ["fold_of"]

#: The golden ratio in 63 bits, odd: multiplying by it spreads neighbouring numbers (Knuth's multiplicative hashing).
_GOLDEN = 0x4F1BBCDCBFA53E0B
_LOW = (1 << 31) - 1


def fold_of(users: Tensor, folds: int) -> Tensor:
    """Return the fold of each user, int64 in 0..folds - 1: a hash of the user index and of nothing else.

    A user's index outlives the night, so that a user stays in one fold from night to night.

    Args:
        users: int64, user indices.
        folds: at least 1.

    >>> import torch
    >>> torch.bincount(fold_of(torch.arange(1000), 4)).tolist()
    [250, 250, 250, 250]
    """
    return (((users + 1) * _GOLDEN) >> 32 & _LOW) % folds
