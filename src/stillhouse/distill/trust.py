"""Selective imitation: how much each position's teacher is listened to."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Trust", "trust"]

Trust = Literal["everywhere", "where_right", "by_confidence"]


def trust(kind: Trust, batch: PositionBatch, teacher: TeacherRows, within: int = 10) -> Tensor:
    """Return what each position's teacher counts relative to the others, float [N], at least 0.

    Args:
        kind: ``everywhere``: all positions alike; ``where_right``: where what came next is among the
            teacher's first ``within`` unseen items, and nowhere else; ``by_confidence``: in
            proportion to `TeacherRows.confidence`.
        batch: N positions with what came next.
        teacher: of the same.
        within: at least 1.

    Source: the idea that a teacher who is often worse than its student must be heard selectively is
    that of Y. Cui et al., "Distillation Matters: Empowering Sequential Recommenders to Match the
    Performance of Large Language Models" (DLLM2Rec), RecSys 2024.
    """
    match kind:
        case "everywhere":
            return torch.ones_like(teacher.tail_lse)
        case "where_right":
            return (teacher.items[:, :within] == batch.targets.unsqueeze(1)).any(dim=1).to(teacher.tail_lse)
        case "by_confidence":
            return teacher.confidence
