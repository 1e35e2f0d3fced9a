"""Logit regression: the teacher's scores themselves, up to a constant a position."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stillhouse.distill.heads import centred, standardised
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

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

    def __init__(self, *, draws: bool = True, standardise: bool = False) -> None:
        """Compare scores over the head, with ``draws`` over what was drawn from the tail too."""
        self._draws = draws
        self._scaled = standardised if standardise else centred

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return the teacher's side."""
        real, scores = ~teacher.padding, teacher.scores
        if self._draws:
            drawn = (teacher.tail_items != 0) & ~torch.isinf(teacher.tail_logq)
            real, scores = torch.cat([real, drawn], dim=1), torch.cat([scores, teacher.tail_scores], dim=1)
        return {"real": real, "theirs": self._scaled(scores, real)}

    def loss(self, said: Said) -> Tensor:
        """Return the mean squared difference at each position, float [n]."""
        real = said.own["real"]
        scores = torch.cat([said.head, said.drawn], dim=1) if self._draws else said.head
        apart = self._scaled(scores, real) - said.own["theirs"]
        return apart.square().sum(dim=1) / real.sum(dim=1).clamp_min(1)
