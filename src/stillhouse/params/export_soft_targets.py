"""Settings of the stage ``export_soft_targets``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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
    score_bits: int = pydantic.Field(4, ge=1, le=8)
    """Bits of a kept score: 2**bits levels between a position's best and its k-th."""
    tail_samples: int = pydantic.Field(ge=0)
    """Items drawn at each position to stand for those beyond the top k, one of each stratum of the catalogue."""
    tail_bits: int = pydantic.Field(5, ge=2, le=7)
    """Bits of a drawn item's score."""
    temperatures: tuple[Annotated[float, pydantic.Field(gt=0.0)], ...] = pydantic.Field(min_length=1)
    """Temperatures at which the log-sum-exp beyond the top k is kept; a half of another costs least."""
    shard_positions: int = pydantic.Field(ge=1)
    """Positions a shard."""
    batch_size: int = pydantic.Field(ge=1)
    """Sequences scored at once."""
    windows: Literal["last", "all"] = "last"
    """Which positions of a long history the teacher scores: the last window's, or those of all windows, which students
    whose ``training.windows`` says so then learn from. It costs as much more as there are positions before the last."""
    keep_nights: int = pydantic.Field(0, ge=0, le=98)
    """Most nights that a user with the same training rows keeps what an earlier teacher said, while teachers start
    warm and ``hidden`` is false; 0: every night scores everybody."""
    hidden: bool = False
    """Keep the teacher's state behind each position too, two bytes a number, for methods that compare states. Every
    night then scores everybody, whatever ``keep_nights`` says: no two teachers' states lie in one basis."""
    copies: int = pydantic.Field(0, ge=0, le=16)
    """Copies of each user's training rows with some items substituted, which the teacher scores too: students learn
    from them what it says, and no label. Each costs as much again, here and in every student's epoch; every night
    makes them afresh."""
    substituted: float = pydantic.Field(0.2, gt=0.0, le=1.0)
    """How likely an event of a copy is another item, one that stood beside it in somebody's history."""
    seed: int = pydantic.Field(ge=0)
    repeat_items: bool
    compute: ComputeSpec

    @pydantic.field_validator("temperatures")
    @classmethod
    def _differ(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("temperatures must differ")
        return temperatures
