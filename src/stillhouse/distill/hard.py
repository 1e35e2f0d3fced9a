"""The hard loss: what a person did next, against all items at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stillhouse.distill.protocol import LossParts, PositionBatch

__all__ = ["HardObjective", "hard_loss"]


def hard_loss(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean cross-entropy of the targets against every item.

    ``sum_n w_n * (logsumexp(scores_n) - scores_n[target_n]) / sum_n w_n``

    Args:
        scores: float [N, n_items + 1], unbounded; -inf marks what cannot be chosen.
        targets: int64 [N], item index of what came next, never a masked column.
        weights: float [N], at least 0.

    Returns:
        A scalar in nats, at least 0. It is 0 (with a zero gradient) where all
        weights are 0 or N is 0, so that an empty batch moves nothing.

    >>> import torch
    >>> scores = torch.tensor([[float("-inf"), 0.0, 0.0], [float("-inf"), 0.0, 0.0]])
    >>> round(hard_loss(scores, torch.tensor([1, 2]), torch.tensor([1.0, 3.0])).item(), 4)
    0.6931
    """
    shares = weights / weights.sum().clamp_min(1e-12)
    loss: Tensor = _CrossEntropy.apply(scores.float(), targets, shares)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """``sum_n share_n * (logsumexp(scores_n) - scores_n[target_n])``, with one table instead of three.

    The scores of a batch against a whole catalogue are the largest tensor of a
    training step by far: the table of log-probabilities becomes the gradient in place.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """Return the scalar; keep the log-probabilities."""
        logs = torch.log_softmax(scores, dim=1)
        ctx.save_for_backward(logs, targets, shares)
        return -(logs.gather(1, targets[:, None]).squeeze(1) * shares).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return ``share_n * (softmax(scores_n) - onehot(target_n))`` times the gradient that came in."""
        logs, targets, shares = ctx.saved_tensors
        scale = shares * gradients[0]
        gradient = logs.exp_().mul_(scale[:, None])
        gradient[torch.arange(len(targets), device=targets.device), targets] -= scale
        return gradient, None, None


class HardObjective:
    """Trains on what people did and nothing else: the teacher, and a student alone."""

    def __call__(self, scores: Tensor, batch: PositionBatch) -> LossParts:
        """Return the hard loss as the whole loss."""
        loss = hard_loss(scores, batch.targets, batch.weights)
        return LossParts(total=loss, parts={"hard_loss": loss.detach()})
