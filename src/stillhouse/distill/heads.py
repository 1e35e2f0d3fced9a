"""What several methods do with a teacher's best items: bring scores to one scale, and choose by rank."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LEAST_SPREAD", "by_rank", "centred", "standardised", "with_spread"]

#: Below this spread of a row's scores, standardising them would only lift noise.
LEAST_SPREAD = 1e-4


def centred(scores: Tensor, real: Tensor) -> Tensor:
    """Return scores less the mean of their row's real ones, 0 where ``real`` is not.

    Args:
        scores: float [n, M]; what stands where ``real`` is false means nothing.
        real: bool [n, M].

    >>> centred(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])
    """
    kept = scores.masked_fill(~real, 0.0)
    mean = kept.sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp_min(1)
    return (kept - mean).masked_fill(~real, 0.0)


def standardised(scores: Tensor, real: Tensor) -> Tensor:
    """Return `centred` scores over their standard deviation, row by row.

    Source: S. Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024:
    a small student need not reach its teacher's spread of scores, only their order and proportions.

    >>> standardised(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).round(decimals=3)
    tensor([[-1.,  1.,  0.]])
    """
    return with_spread(scores, real)[0]


def with_spread(scores: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return `standardised` scores and the deviation that they were divided by, float [n, 1]."""
    apart = centred(scores, real)
    variance = apart.square().sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp_min(1)
    spread = (variance + LEAST_SPREAD**2).sqrt()
    return apart / spread, spread


def by_rank(real: Tensor, decay: float, samples: int | None) -> Tensor:
    """Return how much each place of a ranking counts, float [n, K]: rows sum to 1, or to 0 without a real place.

    Place r (from 0) has the odds ``exp(-r / decay)``. With ``samples`` so many places are
    drawn without replacement and count the same; ``None`` gives the odds themselves, which
    is what one draw comes to on average.

    Args:
        real: bool [n, K], the places that hold an item.
        decay: > 0, in places.
        samples: at least 1; more than there are places takes all of them.

    >>> by_rank(torch.tensor([[True, True, False]]), 1.0, None).round(decimals=3)
    tensor([[0.7310, 0.2690, 0.0000]])
    """
    places = torch.arange(real.shape[1], device=real.device)
    odds = -(places / decay).expand(real.shape)
    if samples is None:
        found = odds.exp().masked_fill(~real, 0.0)
    else:
        # Gumbel's trick: the largest of log-odds and noise are draws without replacement.
        noise = torch.rand(real.shape, device=real.device).clamp_(1e-9, 1.0 - 1e-7)
        keys = (odds - (-noise.log()).log()).masked_fill(~real, -torch.inf)
        chosen = keys.topk(min(samples, real.shape[1]), dim=1).indices
        found = torch.zeros_like(odds).scatter_(1, chosen, 1.0).masked_fill(~real, 0.0)
    return found / found.sum(dim=1, keepdim=True).clamp_min(1e-12)
