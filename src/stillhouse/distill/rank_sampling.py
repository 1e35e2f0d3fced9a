"""Collaborative distillation: item by item, more often of the items that the teacher ranks high."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stillhouse.distill.heads import by_rank
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["RankSampling"]

#: Nearest to 0 and 1 that a probability comes before its log-odds are taken, in nats.
_EDGE = 1e-6


class RankSampling(Method):
    """The binary cross-entropy of single items, chosen by the teacher's ranking.

    ``loss = sum_i w_i BCE(sigmoid((a_i + shift) / spread), b_i)`` where a_i are the log-odds that
    the teacher gives an item among the unseen ones, b_i the student's probability of it, and w
    counts ``samples`` places drawn with odds ``exp(-place / decay)``, or without ``samples`` the
    odds themselves: the store holds all K items of the list, so that the mean over draws costs no
    more than one of them and has no noise. Where shift is 0 and spread 1 a student that equals its
    teacher is where the loss is least.

    The paper's scores are logits of independent items. Those of a softmax are known up to a
    constant, so log-odds stand for them on both sides, at the temperature of the mix.

    Source: J. Lee, M. Choi, J. Lee, H. Shim, "Collaborative Distillation for Top-N Recommendation",
    ICDM 2019 (teacher-guided training).
    """

    name = "rank_sampling_loss"
    wants_draws = wants_tail = False

    def __init__(
        self, *, samples: int | None = None, decay: float = 10.0, spread: float = 1.0, shift: float = 0.0
    ) -> None:
        """Draw ``samples`` of the stored items (``None``: all, weighted), with odds that fall over ``decay`` places."""
        self._samples, self._decay, self._spread, self._shift = samples, decay, spread, shift

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return the chosen items' shares, and what is asked for each."""
        probs = teacher.probs.clamp(_EDGE, 1.0 - _EDGE)
        asked = ((probs.logit() + self._shift) / self._spread).sigmoid()
        return {"share": by_rank(~teacher.padding, self._decay, self._samples), "asked": asked}

    def loss(self, said: Said) -> Tensor:
        """Return the binary cross-entropy at each position, float [n]."""
        logs = said.head / said.temperature - said.log_unseen.unsqueeze(1)
        logs = logs.masked_fill(said.teacher.padding, -1.0).clamp_max(-_EDGE)
        asked = said.own["asked"]
        each = asked * logs + (1.0 - asked) * torch.log(-torch.expm1(logs))
        return -(said.own["share"] * each).sum(dim=1)

    def scale(self, temperature: float) -> float:
        """Return temperature²: both sides' probabilities are softened by it, as those of soft labels are."""
        return temperature**2
