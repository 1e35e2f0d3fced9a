"""Settings of the stage ``check_teacher``."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from stillhouse.params.base import StageParams
from stillhouse.params.model import ComputeSpec

__all__ = ["CheckTeacherParams"]


class CheckTeacherParams(StageParams):
    """What a teacher must reach before it may teach."""

    section: ClassVar[str] = "check_teacher"
    shared: ClassVar[tuple[str, ...]] = ("repeat_items", "compute")

    min_over_popularity: float = pydantic.Field(ge=0.0)
    """Least NDCG@10 on the validation split as a multiple of popularity's."""
    max_drop: float = pydantic.Field(ge=0.0, le=1.0)
    """Largest relative loss of NDCG@10 against last night's teacher on tonight's validation split."""
    min_coverage: float = pydantic.Field(ge=0.0, le=1.0)
    """Least share of the catalogue in all top-10 lists together: a collapsed teacher recommends a handful."""
    repeat_items: bool
    compute: ComputeSpec
