"""Settings of the stage ``prepare``."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import pydantic

from stillhouse.params.base import EventWeights, StageParams

__all__ = ["PrepareParams"]


class PrepareParams(StageParams):
    """How accepted rows become sequences and splits."""

    section: ClassVar[str] = "prepare"
    shared: ClassVar[tuple[str, ...]] = ("repeat_items", "event_weights")
    night: ClassVar[tuple[str, ...]] = ("as_of",)

    min_user_events: int = pydantic.Field(ge=1)
    """k of the users' side of the k-core, over training rows."""
    min_item_events: int = pydantic.Field(ge=1)
    """k of the items' side."""
    min_rating: float | None
    """Rows rated lower are no sign of liking and are left out; ``null`` keeps all."""
    window_days: float = pydantic.Field(ge=0.0)
    """Longest time window before ``as_of`` that is held out for the gate; 0: none."""
    repeat_items: bool
    event_weights: EventWeights
    as_of: datetime
