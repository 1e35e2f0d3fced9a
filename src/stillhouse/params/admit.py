"""Settings of the stage ``admit``."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from stillhouse.params.base import StageParams

__all__ = ["AdmitParams"]


class AdmitParams(StageParams):
    """How much quarantine a night bears."""

    section: ClassVar[str] = "admit"

    max_quarantined: float = pydantic.Field(ge=0.0, le=1.0)
    """Largest share of the snapshot's rows in quarantine."""
