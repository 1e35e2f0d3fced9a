"""Settings of the gate, the registry and the night itself: read by the flow, not by a stage."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import available_timezones

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["GateParams", "NightParams", "SlicesParams"]


class SlicesParams(Frozen):
    """Parts of the users and items that must not regress against the champion."""

    margin: float = pydantic.Field(ge=0.0, lt=1.0)
    """How much of the champion's NDCG@10 a part may lose (relative) before it counts as a regression."""
    min_users: int = pydantic.Field(ge=1)
    """Parts with fewer users are left out: they can show nothing."""
    categories: bool
    """Whether each category of items is a part too."""


class GateParams(Frozen):
    """What a student must clear to become champion."""

    mode: Literal["automatic", "approve"] = "automatic"
    """``approve``: the student that is chosen waits for a person (``stillhouse approve``, ``stillhouse reject``)."""
    choose: Literal["best_ndcg", "smallest", "fastest"]
    """Which of the students that pass is promoted."""
    against_champion: Literal["non_inferiority", "superiority"]
    """``superiority``: the student must be shown to be better, and ``margin`` is not used."""
    margin: float = pydantic.Field(ge=0.0, lt=1.0)
    """How much of the champion's NDCG@10 may be lost (relative) and still pass."""
    reference: Literal["first", "none"] | Annotated[int, pydantic.Field(ge=1)]
    """What many small losses add up against: the first champion that there was, a version, or nothing."""
    reference_margin: float = pydantic.Field(ge=0.0, lt=1.0)
    """How much of the reference's NDCG@10 may be lost (relative)."""
    slices: SlicesParams
    """Parts that must not be shown to lose more."""
    max_quarantined: float = pydantic.Field(ge=0.0, le=1.0)
    """Largest share of the night's rows in quarantine with which a student may be promoted."""
    confidence: float = pydantic.Field(gt=0.5, lt=1.0)
    """One-sided confidence of the paired bootstrap bound."""
    resamples: int = pydantic.Field(ge=100)
    """Draws of the bootstrap."""
    min_users: int = pydantic.Field(ge=1)
    """Fewer users in the comparison are inconclusive, which is not a pass."""
    min_ndcg_at_10: float = pydantic.Field(ge=0.0, le=1.0)
    """Least NDCG@10 (leave-one-out)."""
    min_over_popularity: float = pydantic.Field(ge=0.0)
    """Least NDCG@10 (leave-one-out) as a multiple of popularity's."""
    max_bytes: int = pydantic.Field(ge=1)
    """Largest package."""
    max_p99_ms: float = pydantic.Field(gt=0.0)
    """Slowest request of a hundred, in milliseconds."""
    seed: int = pydantic.Field(ge=0)
    """Of the bootstrap."""


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
