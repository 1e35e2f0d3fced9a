"""Settings of the stage ``train_teacher``."""

from __future__ import annotations

from typing import ClassVar

from stillhouse.params.base import StageParams
from stillhouse.params.model import ComputeSpec, TeacherSpec, TrainingSpec

__all__ = ["TrainTeacherParams"]


class TrainTeacherParams(StageParams):
    """The teacher's architecture and training."""

    section: ClassVar[str] = "train_teacher"
    shared: ClassVar[tuple[str, ...]] = ("seed", "repeat_items", "compute")

    model: TeacherSpec
    """What the teacher is (docs/teachers.md)."""
    training: TrainingSpec
    """Of a model that is trained by steps, and of members of an ensemble that bring none of their own."""
    seed: int
    repeat_items: bool
    compute: ComputeSpec
