"""What is true of a snapshot's cells: flags by row, as NumPy arrays."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillhouse.data.night_rows import NightRows
from stillhouse.data.rows import SNAPSHOT_SCHEMA

__all__ = ["Bools", "flat", "id_flags", "readable", "seconds_of", "shorten", "time_faults", "unparsed_columns", "valid"]

Bools = NDArray[np.bool_]

#: Characters of a cell that an error shows.
_SHOWN = 40

#: A timestamp divided by its unit is believed up to here: 2200-01-01, as ingest has it.
_LATEST = 7_258_118_400

_UNITS = (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))


def flat(array: pa.Array) -> NDArray[Any]:
    """Return an Arrow array without nulls as a NumPy array."""
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def shorten(cell: object) -> str:
    """Return a cell as an error shows it: one line, quoted, cut with its length named.

    >>> shorten("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…' (50 characters)"
    >>> shorten(None), shorten(7.5), shorten("tea")
    ('null', '7.5', "'tea'")
    """
    if cell is None:
        return "null"
    if not isinstance(cell, str):
        return str(cell)
    if len(cell) <= _SHOWN:
        return repr(cell)
    return f"{cell[:_SHOWN] + '…'!r} ({len(cell):,} characters)"


def readable(unparsed: str | None, column: str) -> object:
    """Return the text that stood in ``column`` according to the snapshot's ``unparsed`` cell."""
    return _cells(unparsed).get(column) if unparsed is not None else None


def _cells(text: str) -> dict[str, object]:
    try:
        cells = json.loads(text)
    except ValueError:
        cells = None
    return cells if isinstance(cells, dict) and cells else {"row": text}


def valid(rows: NightRows, column: str) -> Bools:
    """Return which cells of ``column`` are not null. Shape [n]."""
    flags: Bools = flat(pc.is_valid(rows.values(column)))
    return flags


def unparsed_columns(rows: NightRows) -> dict[str, Bools]:
    """Return for each column of the snapshot which rows' cell could not be read. Shape [n] each.

    A key of ``unparsed`` that is no column of the snapshot counts for
    ``unparsed`` itself: the row is bad, whatever the key means.
    """
    cells = rows.values("unparsed")
    flags = {name: np.zeros(rows.n, bool) for name in SNAPSHOT_SCHEMA.names}
    where = np.flatnonzero(valid(rows, "unparsed"))
    coded = cells.take(pa.array(where)).dictionary_encode()
    keys = [{key if key in flags else "unparsed" for key in _cells(text)} for text in coded.dictionary.to_pylist()]
    codes = flat(coded.indices)
    for column, flag in flags.items():
        flag[where] = np.array([column in names for names in keys], bool)[codes]
    return flags


def id_flags(rows: NightRows, column: str, longest: int) -> tuple[Bools, Bools]:
    """Return which ids are absent (null, empty or white space) and which are over ``longest`` characters. Shape [n]."""
    names = rows.names(column)
    # One entry more than there are names: code -1 (null) looks up the last.
    blank = flat(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(names)), 0))
    long = flat(pc.greater(pc.utf8_length(names), longest)) & ~blank
    codes = rows.codes(column)
    return np.append(blank, True)[codes], np.append(long, False)[codes]


def time_faults(times: NDArray[np.int64], present: Bools, earliest: date, as_of: datetime) -> dict[str, Bools]:
    """Return which timestamps are milliseconds, microseconds, nanoseconds, ``early`` or ``late``; at most one each.

    A number after ``as_of`` that is a date between ``earliest`` and the year
    2200 once it is divided by 1,000 (or a million, or a thousand million) is
    taken for that unit; what is left is late.

    Args:
        times: [n] seconds since 1970, anything where not ``present``.
        present: [n] which cells hold a number.
        earliest: no event is older (UTC midnight).
        as_of: no event is later; without a zone it is UTC.
    """
    first = seconds_of(datetime.combine(earliest, time(), UTC))
    faults = {"early": present & (times < int(first))}
    # Late ones are few: only they are looked at further. A whole number is after a moment where it is after its second.
    late = np.flatnonzero(present & (times > int(seconds_of(as_of) // 1)))
    for unit, factor in _UNITS:
        scaled = times[late] // factor
        fits = (scaled >= first) & (scaled <= _LATEST)
        faults[unit] = _flags(len(times), late[fits])
        late = late[~fits]
    return {**faults, "late": _flags(len(times), late)}


def _flags(n: int, where: NDArray[np.int64]) -> Bools:
    flags = np.zeros(n, bool)
    flags[where] = True
    return flags


def seconds_of(moment: datetime) -> float:
    """Return ``moment`` in seconds since 1970; a moment without a zone is UTC.

    >>> seconds_of(datetime(1970, 1, 2))
    86400.0
    """
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
