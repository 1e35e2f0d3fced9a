"""Settings of the gate, the registry and the night itself: read by the flow, not by a stage."""

from __future__ import annotations

from typing import Literal
from zoneinfo import available_timezones

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["GateParams", "NightParams"]


class GateParams(Frozen):
    """What a student must clear to become champion."""

    choose: Literal["best_ndcg", "smallest", "fastest"]
    """Which of the students that pass is promoted."""
    margin: float = pydantic.Field(ge=0.0, lt=1.0)
    """How much of the champion's NDCG@10 may be lost (relative) and still pass."""
    confidence: float = pydantic.Field(gt=0.5, lt=1.0)
    """One-sided confidence of the paired bootstrap bound."""
    resamples: int = pydantic.Field(ge=100)
    min_users: int = pydantic.Field(ge=1)
    """Fewer users in the comparison are inconclusive, which is not a pass."""
    min_ndcg_at_10: float = pydantic.Field(ge=0.0, le=1.0)
    min_over_popularity: float = pydantic.Field(ge=0.0)
    """Least NDCG@10 (leave-one-out) as a multiple of popularity's."""
    max_bytes: int = pydantic.Field(ge=1)
    max_p99_ms: float = pydantic.Field(gt=0.0)
    seed: int = pydantic.Field(ge=0)


class NightParams(Frozen):
    """How nights follow each other."""

    cold_every: int = pydantic.Field(ge=0)
    """Every so many closed nights the weights start afresh; 0: never."""
    timezone: str = "UTC"
    """What a date without a zone means on the command line: a name of the IANA database."""

    @pydantic.field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("timezone must be a name of the IANA database, such as Europe/Berlin")
        return value
