"""Settings of the stage ``export_soft_targets``."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from stillhouse.params.base import StageParams
from stillhouse.params.model import ComputeSpec

__all__ = ["ExportSoftTargetsParams"]


class ExportSoftTargetsParams(StageParams):
    """What the store keeps of the teacher's scores."""

    section: ClassVar[str] = "export_soft_targets"
    shared: ClassVar[tuple[str, ...]] = ("seed", "repeat_items", "compute")

    k: int = pydantic.Field(ge=1)
    """Highest-scored unseen items kept a position."""
    tail_samples: int = pydantic.Field(ge=0)
    """Items sampled beyond the top k, with their probabilities."""
    temperatures: tuple[Annotated[float, pydantic.Field(gt=0.0)], ...] = pydantic.Field(min_length=1)
    """Temperatures at which the log-sum-exp over all unseen items is kept."""
    shard_positions: int = pydantic.Field(ge=1)
    """Positions a shard."""
    batch_size: int = pydantic.Field(ge=1)
    """Sequences scored at once."""
    seed: int = pydantic.Field(ge=0)
    repeat_items: bool
    compute: ComputeSpec
