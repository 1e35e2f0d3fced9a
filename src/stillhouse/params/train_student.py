"""Settings of the stage ``train_student``."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from stillhouse.params.base import Frozen, StageParams
from stillhouse.params.model import ComputeSpec, ModelSpec, TrainingSpec

__all__ = ["DistillationSpec", "StudentSpec", "TrainStudentParams"]


class DistillationSpec(Frozen):
    """How hard and soft targets are mixed.

    The loss is ``alpha * hard + (1 - alpha) * temperature**2 * soft``.
    """

    alpha: float = pydantic.Field(ge=0.0, le=1.0)
    """Weight of the hard loss; 1 trains the student alone."""
    temperature: float = pydantic.Field(gt=0.0)
    """Temperature of both sides of the soft loss; one of the store's."""


class StudentSpec(Frozen):
    """One student: its architecture, and where it departs from the common settings."""

    model: ModelSpec
    training: TrainingSpec | None = None
    """In place of ``train_student.training``."""
    distillation: DistillationSpec | None = None
    """In place of ``train_student.distillation``."""


class TrainStudentParams(StageParams):
    """How each student is distilled."""

    section: ClassVar[str] = "train_student"
    shared: ClassVar[tuple[str, ...]] = ("seed", "repeat_items", "compute")
    instances: ClassVar[str | None] = "students"

    training: TrainingSpec
    distillation: DistillationSpec
    student: StudentSpec
    seed: int
    repeat_items: bool
    compute: ComputeSpec
