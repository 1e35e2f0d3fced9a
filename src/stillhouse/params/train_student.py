"""Settings of the stage ``train_student``."""

from __future__ import annotations

from typing import ClassVar

from stillhouse.params.base import Frozen, StageParams
from stillhouse.params.distillation import DistillationSpec
from stillhouse.params.model import ComputeSpec, ModelSpec, TrainingSpec

__all__ = ["StudentSpec", "TrainStudentParams"]


class StudentSpec(Frozen):
    """One student: its architecture, and where it departs from the common settings."""

    model: ModelSpec
    """What the student is."""
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
    """Of students that bring none of their own."""
    distillation: DistillationSpec
    """Of students that bring none of their own."""
    student: StudentSpec
    seed: int
    repeat_items: bool
    compute: ComputeSpec
