"""Feature matching: the student's state, seen through a learnt projection, is the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.distill.method import Method, Said

__all__ = ["Features"]


class Features(Method):
    """The distance of the projected state of the student from that of the teacher.

    ``loss = |W h + b - h_T|² / d`` with d the teacher's width, or with ``cosine`` 1 less the cosine of
    the two. W and b are learnt with the student and thrown away with the training. The store must hold
    the teacher's states (``export_soft_targets.hidden``). Temperature plays no part.

    Sources: A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015; for recommenders, with
    several projections: S. Kang et al., "DE-RRD", CIKM 2020.
    """

    name = "feature_loss"
    reads_states = True
    wants_draws = wants_unseen = wants_tail = False

    def __init__(self, width: int, teacher_width: int, *, cosine: bool = False, seed: int = 0) -> None:
        """Project states of ``width`` to ``teacher_width``; the first weights are drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._projection = nn.Linear(width, teacher_width)
        self.weights = self._projection
        self._cosine = cosine

    def loss(self, said: Said) -> Tensor:
        """Return the distance at each position, float [n]."""
        if said.teacher.hidden is None:
            raise ValueError("the teacher's states must be given, found none")
        theirs = said.teacher.hidden
        weight = self._projection.weight.to(said.hidden.dtype)
        ours = functional.linear(said.hidden, weight, self._projection.bias.to(said.hidden.dtype))
        if self._cosine:
            return 1.0 - functional.cosine_similarity(ours, theirs.to(ours.dtype), dim=1)
        return (ours - theirs).square().mean(dim=1)
