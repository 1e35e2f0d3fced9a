"""Times that a person gives."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from stillhouse.errors import ParamsError

__all__ = ["moment"]


def moment(text: str, timezone: str, what: str) -> datetime:
    """Return the instant that ``text`` names, in UTC.

    Args:
        text: a date or an ISO time, such as ``2026-03-02`` or ``2026-03-02 14:00+01:00``.
        timezone: what a time without an offset means, a name of the IANA database (``night.timezone``).
        what: the option's name, for errors, such as ``as_of (--as-of)``.

    Raises:
        ParamsError: it is neither, or no time of UTC's calendar.
    """
    name, _, where = what.partition(" ")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ParamsError(
            f"{name} must be a date or an ISO time, such as 2026-03-02T03:00, got {text!r} {where}"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=ZoneInfo(timezone))
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ParamsError(f"{name} must be within the years 1 to 9999 in UTC, got {text!r} {where}") from None
