"""Ages on the command line: ``26h``, ``90m``, ``2d``."""

from __future__ import annotations

import re
from datetime import timedelta

from stillhouse.errors import ParamsError

__all__ = ["parse_age", "show_age"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_age(text: str) -> timedelta:
    """Return the length of time that ``text`` names.

    Raises:
        ParamsError: it is no number with one of the units s, m, h, d.

    >>> parse_age("26h")
    datetime.timedelta(days=1, seconds=7200)
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ParamsError(f"an age must be a number with s, m, h or d, such as 26h, got {text!r} (--max-age)")
    return timedelta(**{_UNITS[found.group(2)]: float(found.group(1))})


def show_age(age: timedelta) -> str:
    """Return ``age`` in its largest sensible unit.

    >>> show_age(timedelta(hours=30))
    '30 h'
    """
    seconds = age.total_seconds()
    for size, unit in ((172800, "d"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
