"""Settings of the alerts: what is worth waking a person for. No stage reads them."""

from __future__ import annotations

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["AlertsParams"]


class AlertsParams(Frozen):
    """Limits beyond which a night, or its absence, raises an alert; 0 or null switches one off."""

    max_quarantined: float | None = pydantic.Field(0.01, ge=0.0, le=1.0)
    """Largest share of the night's rows in quarantine without an alert. The night goes on until
    ``admit.max_quarantined``; beyond that it stops, which is another alert."""
    max_champion_days: float | None = pydantic.Field(14.0, ge=0.0)
    """Days after the time that its night was for until a champion counts as old."""
    max_late_hours: float | None = pydantic.Field(3.0, ge=0.0)
    """Hours after its scheduled time until a night that has not run counts as missed."""
