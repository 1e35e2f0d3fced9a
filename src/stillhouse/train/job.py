"""What a training is asked to do, and what it says when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.sequences import Sequences
from stillhouse.distill.protocol import Objective
from stillhouse.params.model import ComputeSpec, TrainingSpec

__all__ = ["Job", "Outcome"]


@dataclass(frozen=True)
class Job:
    """What is to be trained, on what, and how."""

    objective: Objective
    sequences: Sequences
    training: TrainingSpec
    compute: ComputeSpec
    seed: int
    warm: bool
    """The model starts from earlier weights: fewer epochs, and the start itself may win."""
    resume: Path
    """Directory that outlives a kill; it belongs to exactly this job."""
    where: str
    """Section of params.yaml for errors, such as ``train_teacher.training``."""
    covers: tuple[float, float] = (0.0, 1.0)
    """What of the whole lesson's progress falls to this job, from and to, within 0..1."""


@dataclass(frozen=True)
class Outcome:
    """How a training went; the same for a broken and an unbroken run."""

    ndcg_at_10: float
    """Of the weights that were kept, on the validation targets of early stopping."""
    best_epoch: int
    """Epochs behind the weights that were kept; 0: the warm start was never beaten."""
    epochs: int
    """Epochs that were trained."""
    losses: Mapping[str, float]
    """Mean loss and parts a position, of the last epoch."""
