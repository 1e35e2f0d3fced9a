"""The hard loss: what a person did next, against all items at once."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.distill.catalogue import look
from stillhouse.distill.protocol import Answer, LossParts, PositionBatch, Wanted
from stillhouse.distill.seen import Histories, Seen, SeenBefore

__all__ = ["HardObjective", "hard_loss", "shares"]


def shares(weights: Tensor) -> Tensor:
    """Return each position's share of the batch's hard loss, float [N]: weights that sum to 1, or all 0.

    They are float32 at least: mixed precision hands weights on in half of it, whose sum would be off by a part in 256.
    """
    wide = weights.to(torch.promote_types(weights.dtype, torch.float32))
    return wide / wide.sum().clamp_min(1e-12)


def hard_loss(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean cross-entropy of the targets against every item.

    ``sum_n w_n * (logsumexp(scores_n) - scores_n[target_n]) / sum_n w_n``

    Args:
        scores: float [N, n_items + 1], unbounded; column 0 is never a candidate.
        targets: int64 [N], item index of what came next, at least 1.
        weights: float [N], at least 0.

    Returns:
        A scalar in nats, at least 0. It is 0 (with a zero gradient) where all
        weights are 0 or N is 0, so that an empty batch moves nothing.

    >>> import torch
    >>> scores = torch.tensor([[float("-inf"), 0.0, 0.0], [float("-inf"), 0.0, 0.0]])
    >>> round(hard_loss(scores, torch.tensor([1, 2]), torch.tensor([1.0, 3.0])).item(), 4)
    0.6931
    """
    answer = look(scores.float() if scores.dtype != torch.float64 else scores, Wanted(items=targets.unsqueeze(1)))
    return ((answer.log_total - answer.scores.squeeze(1)) * shares(weights)).sum()


class HardObjective:
    """Trains on what people did and nothing else: the teacher, and a student alone.

    The softmax runs over all items, or, given ``histories``, over those that the position has
    not seen. Where nobody takes an item twice, a list never holds a seen item, and what a model
    learns about keeping them low is of no use to anyone.

    With ``smoothing`` s the loss is ``(1 - s) * hard + s * (logsumexp(scores) - mean(scores))``, both over
    the same candidates: the cross-entropy against a target that gives each of them the same share of s.
    Source: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016; as a
    control for distillation: Yuan et al., "Revisiting Knowledge Distillation via
    Label Smoothing Regularization", CVPR 2020.
    """

    weights = None

    def __init__(self, smoothing: float = 0.0, histories: Histories | None = None) -> None:
        """Smooth labels by ``smoothing`` in [0, 1); leave out what ``histories`` say was seen."""
        self._smoothing = smoothing
        self._before = None if histories is None else SeenBefore(histories)

    def lesson(self, batch: PositionBatch) -> _HardLesson:
        """Return the batch, to be learnt from its targets alone."""
        known = None if batch.on_host is None else batch.on_host.steps
        seen = None if self._before is None else self._before.at(batch.users, batch.steps, known)
        return _HardLesson(batch, self._smoothing, seen)


class _HardLesson:
    def __init__(self, batch: PositionBatch, smoothing: float, seen: Seen | None) -> None:
        self.wanted = Wanted(
            items=batch.targets.unsqueeze(1),
            mean=smoothing > 0.0,
            seen=seen,
            temperatures=() if seen is None else (1.0,),
            total=seen is None,
        )
        self._shares = shares(batch.weights)
        self._smoothing = smoothing

    def loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        """Return the hard loss as the whole loss."""
        target, share = answer.scores[:, 0], self._shares[start:stop]
        among = answer.log_total if self.wanted.total else answer.log_unseen[1.0]
        hard = ((among - target) * share).sum()
        total = hard
        if self._smoothing:
            smooth = ((among - answer.mean) * share).sum()
            total = (1.0 - self._smoothing) * hard + self._smoothing * smooth
        return LossParts(total=total, parts={"hard_loss": hard.detach()})

    def beside(self, states: Tensor) -> None:
        """Add nothing: what people did says nothing of states."""
