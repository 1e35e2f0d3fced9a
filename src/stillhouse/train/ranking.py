"""Where the truth stands in a model's list, on the device that scored it.

`stillhouse.evaluate.ranking` is the reference: it defines what a candidate and
a tie are, and a test holds the two to the same ranks. This form exists because
early stopping ranks thousands of users every epoch, where the scores already are.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ndcg_at", "ranks"]


def ranks(scores: Tensor, targets: Tensor, seen: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the 1-based place of each row's target among the items it competes with.

    Ties and NaN count against the model: an item whose score is not below the
    target's stands before it.

    Args:
        scores: float [n, n_items + 1]; column 0 is never a candidate.
        targets: int64 [n], 0..n_items; 0 is an item that the vocabulary lacks.
        seen: cells that are no candidates, as (row numbers, item indices), int64 of one length.

    Returns:
        int64 [n], 1..n_items + 1; the last value is a miss: the target is unknown, its
        score is NaN or -inf, or it is itself among ``seen``.

    >>> ranks(torch.tensor([[9.0, 1.0, 3.0, 2.0]]), torch.tensor([3]))
    tensor([2])
    """
    found = scores.gather(1, targets[:, None])
    before = ~(scores < found)
    before[:, 0] = False
    lost = (targets == 0) | (found.isnan() | found.isneginf()).squeeze(1)
    if seen is not None:
        before[seen] = False
        lost |= ~before.gather(1, targets[:, None]).squeeze(1)
    return before.sum(dim=1).masked_fill(lost, scores.shape[1])


def ndcg_at(k: int, places: Tensor, n_items: int) -> float:
    """Return the mean of ``1 / log2(rank + 1)`` over rows, 0 for a rank beyond ``k`` and for a miss.

    Args:
        k: cut-off, at least 1.
        places: int64 [n] of 1-based ranks, n ≥ 1; above ``n_items`` they are misses.
        n_items: size of the catalogue.

    >>> ndcg_at(10, torch.tensor([1, 11]), 20)
    0.5
    >>> ndcg_at(10, torch.tensor([1, 6]), 5)
    0.5
    """
    gains = 1.0 / torch.log2(places.double() + 1.0)
    return float(torch.where(places <= min(k, n_items), gains, 0.0).mean())
