"""When a backfill's nights are."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from stillhouse.errors import ParamsError
from tasks.clock import moment

__all__ = ["name_of", "times"]

_DAY = timedelta(days=1)
_MOST = 5000


def times(first: str, last: str, every: timedelta, timezone: str) -> list[datetime]:
    """Return the times of a backfill's nights, in UTC.

    Args:
        first: the first night's time; without an offset it is of ``timezone``.
        last: no night is later; a bare date means its whole day.
        every: from one night to the next; whole days keep the time of day, whatever summer time does.
        timezone: a name of the IANA database (``night.timezone``).

    Raises:
        ParamsError: no such times, or none, or too many between them.
    """
    zone = ZoneInfo(timezone)
    start = moment(first, timezone, "from (--from)")
    end = moment(last, timezone, "to (--to)")
    with contextlib.suppress(ValueError, OverflowError):  # a bare date, and not the last that there is
        end = moment(str(date.fromisoformat(last) + _DAY), timezone, "to (--to)") - timedelta(microseconds=1)
    if every <= timedelta(0):
        raise ParamsError(f"nights must be some time apart, got {every} (--every)")
    local = start.astimezone(zone).replace(tzinfo=None)
    found: list[datetime] = []
    while True:
        try:
            step = every * len(found)
            at = (local + step).replace(tzinfo=zone).astimezone(UTC) if every % _DAY == timedelta(0) else start + step
        except OverflowError:  # beyond any calendar, so beyond the end
            break
        if at > end:
            break
        if len(found) == _MOST:
            raise ParamsError(f"a backfill must be of at most {_MOST:,} nights, got more (--from, --to, --every)")
        found.append(at)
    if not found:
        raise ParamsError(f"from must not lie after to, got {first} and {last} (--from, --to)")
    return found


def name_of(nights: Sequence[datetime], timezone: str) -> str:
    """Return the name of a backfill that was given none: its first and its last night."""
    zone = ZoneInfo(timezone)
    local = [night.astimezone(zone) for night in (nights[0], nights[-1])]
    bare = all(one.time() == datetime.min.time() for one in local)
    return "_".join(one.strftime("%Y-%m-%d" if bare else "%Y-%m-%dT%H%M%S") for one in local)
