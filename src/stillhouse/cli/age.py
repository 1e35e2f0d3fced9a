"""Ages on the command line: ``26h``, ``90m``, ``2d``."""

from __future__ import annotations

import re
from datetime import timedelta

from stillhouse.errors import ParamsError, one_line

__all__ = ["parse_age", "show_age"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_age(text: str, where: str = "--max-age") -> timedelta:
    """Return the length of time that ``text`` names.

    Args:
        text: such as ``26h``.
        where: the option that it was given to, for the error.

    Raises:
        ParamsError: it is no number with one of the units s, m, h, d, or longer than can be counted.

    >>> parse_age("26h")
    datetime.timedelta(days=1, seconds=7200)
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ParamsError(f"an age must be a number with s, m, h or d, such as 26h, got {text!r} ({where})")
    try:
        return timedelta(**{_UNITS[found.group(2)]: float(found.group(1))})
    except OverflowError:
        raise ParamsError(one_line(f"an age must be at most {timedelta.max.days}d, got {text!r} ({where})")) from None


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
