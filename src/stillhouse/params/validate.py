"""Settings of the stage ``validate``."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar

import pydantic

from stillhouse.params.base import EventWeights, StageParams

__all__ = ["ValidateParams"]


class ValidateParams(StageParams):
    """What a row, and a night's rows together, must be like to enter."""

    section: ClassVar[str] = "validate"
    shared: ClassVar[tuple[str, ...]] = ("event_weights",)
    night: ClassVar[tuple[str, ...]] = ("as_of",)

    min_rows: int = pydantic.Field(ge=1)
    """Fewer rows of the night are none."""
    min_users: int = pydantic.Field(ge=1)
    """Fewer users are none."""
    min_items: int = pydantic.Field(ge=1)
    """Fewer items are none."""
    earliest: date
    """No event is older."""
    rating_min: float
    """No rating is lower."""
    rating_max: float
    """No rating is higher."""
    id_length: int = pydantic.Field(ge=1)
    """Most characters of a user or item id."""
    volume_min: float = pydantic.Field(ge=0.0)
    """Least rows tonight as a share of the last accepted night's."""
    volume_max: float = pydantic.Field(gt=0.0)
    """Most rows tonight as a share of the last accepted night's."""
    event_weights: EventWeights
    as_of: datetime

    @pydantic.model_validator(mode="after")
    def _bounds(self) -> ValidateParams:
        for low, high in (("rating_min", "rating_max"), ("volume_min", "volume_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must be at most {high}")
        return self
