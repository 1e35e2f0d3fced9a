"""Reading single columns of a source: whatever type they arrive in, what cannot be read is kept as text.

Each reader takes one Arrow array and returns a `Column`: the values in the
snapshot's type, and beside them the text of each cell that could not be read
(null where it could). A null cell is null in both; no reader raises on a cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "LONGEST_TEXT",
    "Column",
    "read_events",
    "read_ids",
    "read_positions",
    "read_ratings",
    "read_times",
    "text_of",
]

#: Characters of an unread cell that are kept.
LONGEST_TEXT = 200

_INTEGER = r"^-?[0-9]{1,18}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_NUMBER_OR_NAN = r"(?i)^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$|^[+-]?(nan|inf|infinity)$"
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)"
_NULL_WORDS = pa.array(["", "null", "none", "na", "n/a", "\\n"])
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: Beyond it, a float is no whole number of seconds in 64 bits.
_LARGEST = 2.0**62


class Column(NamedTuple):
    """One column as read.

    Attributes:
        values: Arrow array in the snapshot's type; null where there is none or it was not read.
        unread: string array; the cell's text where it could not be read, else null.
    """

    values: pa.Array
    unread: pa.Array


def read_ids(cells: pa.Array, typed: bool) -> Column:
    """Read ids as strings; whole numbers never carry a ``.0``.

    Nullable integers that passed through floats (``123.0``) come back as
    ``123``. In a source of text alone (``typed`` false) that holds for the
    text ``123.0`` too, and an empty cell is null.
    """
    kind = cells.type
    if pa.types.is_floating(kind):
        return _all_read(_float_ids(cells))
    text = text_of(cells)
    if pa.types.is_decimal(kind) or not typed:
        coded = text.dictionary_encode()  # each id is looked at once, however often it stands there
        words = pc.replace_substring_regex(coded.dictionary, r"^(-?[0-9]+)\.0+$", r"\1")
        text = pa.DictionaryArray.from_arrays(coded.indices, words).dictionary_decode()
    return _all_read(_nulled(text))


def read_events(cells: pa.Array) -> Column:
    """Read event types as text without surrounding blanks; an empty cell is null."""
    return _all_read(_nulled(pc.utf8_trim_whitespace(text_of(cells))))


def read_ratings(cells: pa.Array) -> Column:
    """Read ratings as double: an empty cell is null, ``nan`` stays NaN, other text is unread."""
    if _is_number(cells.type):
        return _all_read(pc.cast(cells, pa.float64(), safe=False))
    text = pc.utf8_trim_whitespace(text_of(cells))
    text = pc.if_else(pc.is_in(pc.utf8_lower(text), _NULL_WORDS), pa.scalar(None, pa.string()), text)
    numeric = pc.match_substring_regex(text, _NUMBER_OR_NAN)
    values = pc.cast(_only(text, numeric), pa.float64())
    return Column(values, _shortened(_only(text, pc.invert(numeric))))


def read_times(cells: pa.Array) -> Column:
    """Read moments as int64 seconds since 1970 (UTC), rounded down.

    Numbers are seconds as they stand (a number of milliseconds stays that
    number: validation names it); text is a number or an ISO date or date-time,
    with a zone or in UTC; Arrow's dates and timestamps are what they say.
    """
    kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _whole(cells)
    if pa.types.is_timestamp(kind):
        return _all_read(_floor(pc.cast(cells, pa.int64()), _UNITS[kind.unit]))
    if pa.types.is_date(kind):
        return _all_read(_floor(pc.cast(pc.cast(cells, pa.timestamp("ms")), pa.int64()), 1_000))
    text = _nulled(pc.utf8_trim_whitespace(text_of(cells)))
    numbers = _numbers_in(text)
    if numbers.null_count == text.null_count:
        return _all_read(numbers)
    dates = _iso_seconds(_only(text, pc.is_null(numbers)))
    values = pc.coalesce(numbers, dates)
    return Column(values, _shortened(_only(text, pc.is_null(values))))


def read_positions(cells: pa.Array) -> Column:
    """Read positions as int64; what is no whole number is unread."""
    if pa.types.is_temporal(cells.type):
        return _unread(cells)
    if _is_number(cells.type):
        floats = pc.cast(cells, pa.float64(), safe=False)
        whole = _whole(cells)
        broken = pc.fill_null(pc.not_equal(floats, pc.floor(floats)), False)
        return Column(_only(whole.values, pc.invert(broken)), pc.coalesce(whole.unread, _only(text_of(cells), broken)))
    text = _nulled(pc.utf8_trim_whitespace(text_of(cells)))
    whole_text = pc.replace_substring_regex(text, r"\.0*$", "")
    numeric = pc.match_substring_regex(whole_text, _INTEGER)
    return Column(pc.cast(_only(whole_text, numeric), pa.int64()), _shortened(_only(text, pc.invert(numeric))))


def text_of(cells: pa.Array) -> pa.Array:
    """Return the cells as a string array.

    Raises:
        pyarrow.ArrowInvalid: bytes that are not UTF-8.
        pyarrow.ArrowNotImplementedError: a type without a text form (lists, structs).
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_null(cells.type):
        return pa.nulls(len(cells), pa.string())
    return cells if cells.type == pa.string() else pc.cast(cells, pa.string())


def _is_number(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _all_read(values: pa.Array) -> Column:
    return Column(values, pa.nulls(len(values), pa.string()))


def _unread(cells: pa.Array) -> Column:
    return Column(pa.nulls(len(cells), pa.int64()), _shortened(text_of(cells)))


def _only(values: pa.Array, where: pa.Array) -> pa.Array:
    """Keep ``values`` where ``where`` is true, null elsewhere."""
    return pc.if_else(pc.fill_null(where, False), values, pa.scalar(None, values.type))


def _nulled(text: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _shortened(text: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(text, 0, LONGEST_TEXT) if text.null_count < len(text) else text


def _float_ids(cells: pa.Array) -> pa.Array:
    floats = pc.cast(cells, pa.float64())
    floats = _only(floats, pc.is_finite(floats))
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.less(pc.abs(floats), _LARGEST))
    as_integers = pc.cast(pc.cast(_only(floats, whole), pa.int64()), pa.string())
    return pc.coalesce(as_integers, pc.cast(_only(floats, pc.invert(whole)), pa.string()))


def _whole(cells: pa.Array) -> Column:
    """Round numbers down to int64; NaN is null, what has no room in 62 bits is unread."""
    if pa.types.is_integer(cells.type) and cells.type != pa.uint64():
        return _all_read(pc.cast(cells, pa.int64()))
    floats = pc.cast(cells, pa.float64(), safe=False)
    fits = pc.less(pc.abs(floats), _LARGEST)
    lost = pc.and_(pc.invert(fits), pc.invert(pc.is_nan(floats)))
    values = pc.cast(pc.floor(_only(floats, fits)), pa.int64(), safe=False)
    return Column(values, _only(text_of(cells), lost))


def _floor(counts: pa.Array, unit: int) -> pa.Array:
    """Divide int64 counts by ``unit``, rounding down (Arrow's own division rounds to zero)."""
    if unit == 1:
        return counts
    seconds = np.floor_divide(pc.fill_null(counts, 0).to_numpy(zero_copy_only=False), unit)
    return _only(pa.array(seconds), pc.is_valid(counts))


def _numbers_in(text: pa.Array) -> pa.Array:
    integers = pc.match_substring_regex(text, _INTEGER)
    values = pc.cast(_only(text, integers), pa.int64())
    if values.null_count == text.null_count:
        return values
    others = _only(text, pc.and_(pc.invert(integers), pc.match_substring_regex(text, _NUMBER)))
    return pc.coalesce(values, _whole(pc.cast(others, pa.float64())).values)


def _iso_seconds(text: pa.Array) -> pa.Array:
    text = _only(text, pc.match_substring_regex(text, _ISO))
    if text.null_count == len(text):
        return pa.nulls(len(text), pa.int64())
    import pandas as pd  # late: most sources hold numbers

    # A fraction of a second only ever adds: without it the moment is rounded down.
    plain = pc.replace_substring_regex(text, r"(:[0-9]{2})[.,][0-9]+", r"\1")
    moments = pd.to_datetime(pd.Series(plain.to_pandas()), format="ISO8601", utc=True, errors="coerce")
    seconds = moments.dt.tz_localize(None).astype("datetime64[s]").to_numpy()
    return pa.array(seconds.view(np.int64), mask=np.isnat(seconds))
