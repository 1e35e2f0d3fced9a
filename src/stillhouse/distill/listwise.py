"""Relaxed ranking distillation: the order of the teacher's best items, and all of them above the rest."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stillhouse.distill.heads import by_rank
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Listwise"]

#: What a share of the probability is counted as at least, so that its logarithm stays finite.
_LEAST = 1e-30


class Listwise(Method):
    """The likelihood that the teacher's order of interesting items comes about, one after the other.

    ``loss = -1/M sum_m [ z_m / T - log( sum_{j ≥ m} exp(z_j / T) + sum_tail exp(z / T) ) ]`` over
    the M interesting items in the teacher's order. Uninteresting items are below them and
    without order among themselves. Interesting are ``samples`` places of the store's list, drawn
    with odds ``exp(-place / decay)``, or without ``samples`` all K, which makes it the likelihood
    of the top K under the Plackett-Luce model. Where the paper samples uninteresting items, the
    student's sum over the whole tail stands here: it is at hand, and has no noise.

    Sources: S. Kang, J. Hwang, W. Kweon, H. Yu, "DE-RRD: A Knowledge Distillation Framework for
    Recommender System", CIKM 2020; F. Xia et al., "Listwise Approach to Learning to Rank", ICML 2008.
    """

    name = "listwise_loss"
    wants_draws = False

    def __init__(self, *, samples: int | None = None, decay: float = 10.0) -> None:
        """Draw ``samples`` interesting items (``None``: all), with odds that fall over ``decay`` places."""
        self._samples, self._decay = samples, decay

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return which places are interesting."""
        real = ~teacher.padding
        if self._samples is not None:
            real = by_rank(real, self._decay, self._samples) > 0
        return {"chosen": real}

    def loss(self, said: Said) -> Tensor:
        """Return the mean negative log-likelihood of a choice at each position, float [n]."""
        chosen = said.own["chosen"]
        logs = (said.head / said.temperature - said.log_unseen.unsqueeze(1)).masked_fill(~chosen, 0.0)
        # Shares of the unseen items' sum: what is left to the places from m on, and to the tail.
        shares = logs.exp().masked_fill(~chosen, 0.0)
        left = shares.flip(1).cumsum(1).flip(1) + (said.log_tail - said.log_unseen).exp().unsqueeze(1)
        each = (left.clamp_min(_LEAST).log() - logs).masked_fill(~chosen, 0.0)
        return each.sum(dim=1) / chosen.sum(dim=1).clamp_min(1)

    def scale(self, temperature: float) -> float:
        """Return the temperature: the order has none, so the gradient falls by one factor of it."""
        return temperature
