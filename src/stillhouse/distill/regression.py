"""Logit regression: the teacher's scores themselves, up to a constant a position."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.distill.heads import centred, standardised
from stillhouse.distill.method import Method, Said

__all__ = ["Regression"]


class Regression(Method):
    """The mean squared difference of centred scores over the items that the store names.

    ``loss = 1/M sum_i ((z_i - mean z) - (s_i - mean s))²`` over the M compared items of a
    position: the teacher's best, and with ``draws`` those drawn from the tail, each counting
    the same. No softmax notices a constant, so none is asked for. With ``standardise`` both
    sides are divided by their deviation over these items. Temperature plays no part.

    Sources: J. Ba, R. Caruana, "Do Deep Nets Really Need to be Deep?", NIPS 2014; T. Kim et al.,
    "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation",
    IJCAI 2021; S. Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.
    """

    name = "regression_loss"
    wants_unseen = wants_tail = False

    def __init__(self, *, draws: bool = True, standardise: bool = False) -> None:
        """Compare scores over the head, with ``draws`` over what was drawn from the tail too."""
        self._draws = self.wants_draws = draws
        self._scaled = standardised if standardise else centred

    def loss(self, said: Said) -> Tensor:
        """Return the mean squared difference at each position, float [n]."""
        teacher = said.teacher
        real, theirs, ours = ~teacher.padding, teacher.scores, said.head
        if self._draws:
            counts = (teacher.tail_items != 0) & ~torch.isinf(teacher.tail_logq)
            real = torch.cat([real, counts], dim=1)
            theirs, ours = torch.cat([theirs, teacher.tail_scores], dim=1), torch.cat([ours, said.drawn], dim=1)
        apart = self._scaled(ours, real) - self._scaled(theirs, real)
        return apart.square().sum(dim=1) / real.sum(dim=1).clamp_min(1)
