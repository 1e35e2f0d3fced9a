"""What each row must be like: one rule a reason, each with the rows that break it.

A row that breaks several rules carries all the reasons, but one mistake is
named once: a cell that cannot be read is not also missing, a timestamp in
milliseconds is not also after ``as_of``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillhouse.data.night_rows import NightRows
from stillhouse.data.row_texts import RULE_TEXTS
from stillhouse.data.row_values import Bools, flat, id_flags, readable, shorten, time_faults, unparsed_columns, valid
from stillhouse.params.validate import ValidateParams

__all__ = ["RowRule", "row_rules"]

#: Odd and without a pattern (2^64 over the golden ratio): multiplying by it spreads neighbours over all 64 bits.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Bits of a mixed number by which a row is suspected.
_LEADING = 24
_SHIFT = np.uint64(64 - _LEADING)

_KINDS = {"time": "a number or a date", "rating": "a number"}


@dataclass(frozen=True, eq=False)
class RowRule:
    """One thing that every row must be like, and the rows that are not."""

    kind: str
    """Which words of `RULE_TEXTS` are said about it."""
    column: str
    """The snapshot's column that it is about."""
    bad: Bools
    """[n] the rows that break it."""
    words: Mapping[str, Any]
    """What fills the braces of the words."""
    native: Mapping[str, Any] | None = None
    """Arguments of the expectation that Great Expectations checks on the column itself; none: on ``bad``."""

    @property
    def name(self) -> str:
        """The check's name in the verdict, such as ``user_id: present``."""
        return f"{self.words['word']}: {self.kind.rpartition('_')[2]}"

    @property
    def reason(self) -> str:
        """What stands in quarantine beside a row that breaks it."""
        return RULE_TEXTS[self.kind].reason.format(**self.words)

    @property
    def must(self) -> str:
        """What must hold."""
        return RULE_TEXTS[self.kind].must.format(**self.words)

    def line(self, rows: NightRows, count: int) -> str:
        """Return one line about ``count`` broken rows: what must hold, what was found, where, what to do."""
        text = RULE_TEXTS[self.kind]
        row = int(np.argmax(self.bad))
        file, number = rows.place(row)
        cell = rows.value(self.column, row)
        if self.kind == "readable" and cell is None:
            cell = readable(rows.value("unparsed", row), self.column)
        where = f"first: {file} row {number}, {self.column} {shorten(cell)}"
        found = text.found.format(**self.words)
        advice = text.advice.format(**self.words)
        return f"{self.must}, found {count:,} of {rows.n:,} rows {found} ({where}): {advice}"


def row_rules(rows: NightRows, params: ValidateParams) -> list[RowRule]:
    """Return every rule that applies to ``rows``, in the order in which a row's reasons are given.

    Duplicates are looked for last, among the rows that break no other rule: a
    good row stays when its bad twin has gone. Two rows are one event when user,
    item and time are equal, whatever their event type and rating; the first
    is kept. (The record of what was trained on, and with it the leakage checks,
    know an event by just these three, so no two accepted rows may share them.)
    """
    rules = list(_Rules(rows, params).all())
    clean = ~np.logical_or.reduce([rule.bad for rule in rules])
    last = RowRule("duplicate", "item_id", _repeats(rows, clean), {"word": rows.order})
    return [*rules, last]


class _Rules:
    """The rules of one night; what they share is worked out once."""

    def __init__(self, rows: NightRows, params: ValidateParams) -> None:
        self.rows = rows
        self.params = params
        self.unread = unparsed_columns(rows)
        self.broken = _rows_of_broken_files(rows)

    def all(self) -> Iterator[RowRule]:
        detail = "; ".join(f"{file}: {fault}" for file, fault in list(self.rows.broken.items())[:1])
        yield RowRule("schema", "user_id", self.broken, {"word": "file", "broken": detail})
        for column, bad in self.unread.items():
            kind = "unparsed" if column == "unparsed" else "readable"
            yield self._rule(kind, column, bad, kind=_KINDS.get(column, "text"))
        yield from self._ids()
        yield from self._times()
        if self.rows.has_rating:
            yield from self._ratings()
        if self.rows.has_event:
            yield from self._events()
        if self.rows.items is not None:
            yield self._rule("item_known", "item_id", _strange_items(self.rows, self.rows.items))

    def _rule(self, kind: str, column: str, bad: Bools, /, **words: Any) -> RowRule:
        word = {"time": self.rows.order, "unparsed": "row"}.get(column, column)
        return RowRule(kind, column, bad, {"word": word, **words})

    def _missing(self, column: str, absent: Bools) -> Bools:
        return absent & ~self.broken & ~self.unread[column] & ~self.unread["unparsed"]

    def _ids(self) -> Iterator[RowRule]:
        longest = self.params.id_length
        for column in ("user_id", "item_id"):
            absent, long = id_flags(self.rows, column, longest)
            yield self._rule("id_present", column, self._missing(column, absent))
            yield self._rule("id_length", column, long, id_length=longest)

    def _times(self) -> Iterator[RowRule]:
        present = valid(self.rows, "time")
        yield self._rule("time_present", "time", self._missing("time", ~present))
        if self.rows.order == "position":
            return
        params = self.params
        seconds = flat(pc.fill_null(self.rows.values("time"), 0))
        as_of = params.as_of if params.as_of.tzinfo else params.as_of.replace(tzinfo=UTC)
        words = {"earliest": params.earliest, "as_of": f"{as_of.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        for kind, bad in time_faults(seconds, present, params.earliest, params.as_of).items():
            yield self._rule(kind, "time", bad, **words)

    def _ratings(self) -> Iterator[RowRule]:
        """Yield the rules of a rating column; where there are event types, those without a rating have none."""
        low, high = self.params.rating_min, self.params.rating_max
        cells = self.rows.values("rating")
        present = valid(self.rows, "rating")
        nan = flat(pc.fill_null(pc.is_nan(cells), False))
        numbers = flat(pc.fill_null(cells, low))
        outside = ((numbers < low) | (numbers > high)) & ~nan
        yield self._rule("rating_nan", "rating", nan)
        band = {"min_value": low, "max_value": high}
        words = {"word": "rating", "rating_min": low, "rating_max": high}
        yield RowRule("rating_range", "rating", outside, words, band)
        if not self.rows.has_event:
            yield self._rule("rating_present", "rating", self._missing("rating", ~present))

    def _events(self) -> Iterator[RowRule]:
        known = sorted(self.params.event_weights)
        codes = self.rows.codes("event")
        weightless = [name not in self.params.event_weights for name in self.rows.names("event").to_pylist()]
        # The entry added at the end is what code -1 (null) looks up.
        unknown = np.array([*weightless, False], bool)[codes]
        yield self._rule("event_present", "event", self._missing("event", codes < 0))
        words = {"word": "event", "events": ", ".join(known)}
        yield RowRule("event_known", "event", unknown, words, {"value_set": known})


def _rows_of_broken_files(rows: NightRows) -> Bools:
    bad = np.zeros(rows.n, bool)
    for number, file in enumerate(rows.files):
        if file in rows.broken:
            bad[rows.offsets[number] : rows.offsets[number + 1]] = True
    return bad


def _strange_items(rows: NightRows, items: pa.Table) -> Bools:
    names = rows.names("item_id")
    known = flat(pc.is_in(names, value_set=items.column("item_id").combine_chunks().drop_null()))
    blank = flat(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(names)), 0))
    flags: Bools = np.append(~known & ~blank, False)[rows.codes("item_id")]
    return flags


def _repeats(rows: NightRows, clean: Bools) -> Bools:
    suspect = _suspects(rows, clean)
    keys = {
        "user": rows.codes("user_id")[suspect],
        "item": rows.codes("item_id")[suspect],
        "time": flat(rows.values("time").take(pa.array(suspect))),
    }
    bad = np.zeros(rows.n, bool)
    bad[suspect] = pd.DataFrame(keys, copy=False).duplicated(keep="first").to_numpy()
    return bad


def _suspects(rows: NightRows, clean: Bools) -> NDArray[np.int64]:
    """Return which clean rows may equal another one, in order: every row that does, and few others.

    Rows are mixed into 64-bit numbers, which are quick to sort. Equal rows give
    equal numbers; unequal rows that do so too are let off by whoever compares the rows.
    """
    mixed = rows.codes("user_id").astype(np.uint64)
    mixed *= np.uint64(len(rows.names("item_id")))
    mixed += rows.codes("item_id").astype(np.uint64)
    mixed *= _GOLDEN
    mixed += flat(pc.fill_null(rows.values("time"), 0)).view(np.uint64)
    in_order = mixed[clean]
    in_order.sort()
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    # A table of the leading bits is looked up several times as fast as the sorted numbers themselves.
    marked = np.zeros(1 << _LEADING, bool)
    marked[repeated >> _SHIFT] = True
    return np.flatnonzero(clean & marked[mixed >> _SHIFT])
