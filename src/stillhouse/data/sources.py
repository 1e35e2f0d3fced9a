"""One face for every source: what its fingerprint is, and its rows up to ``as_of``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from stillhouse.data.rows import table_digest
from stillhouse.data.shop import shop_fingerprint, shop_items, shop_rows
from stillhouse.data.source_files import files_fingerprint, read_files, read_item_files
from stillhouse.data.source_sql import read_sql
from stillhouse.params.source import SourceSpec

__all__ = ["LAST_PLAUSIBLE", "Reading", "fingerprint", "is_position_ordered", "read", "seconds_of"]

#: The first second of the year 2201: no event is as late; a number of milliseconds is.
LAST_PLAUSIBLE = 7_289_654_400


@dataclass(frozen=True)
class Reading:
    """What a source holds for one night.

    Attributes:
        interactions: rows with the columns of `stillhouse.data.rows.SNAPSHOT_SCHEMA`,
            in the source's order (SQL: sorted by time, user, item).
        items: the item table (`stillhouse.data.rows.ITEM_SCHEMA`), or None.
        fingerprint: the digest of what was read.
    """

    interactions: pa.Table
    items: pa.Table | None
    fingerprint: str


def fingerprint(source: SourceSpec, as_of: datetime) -> str:
    """Return a digest of what ``source`` gives for the night of ``as_of``.

    Equal digests mean equal rows. It covers the contents of every file (SQL:
    the rows of the queries, whatever their order; the shop: its settings and
    its days), and how the columns are read. Where later rows are left in the
    source, it covers the rows that are not, and the items. ``as_of`` itself
    never counts: where it decides what is read, two nights with no row between
    them have one digest.

    Raises:
        SourceError: the source cannot be reached or read.
        ParamsError: the source's settings lack something or hold a password.
    """
    if source.kind == "shop":
        return _digest(source, shop_fingerprint(source.shop, as_of))
    if source.kind == "file" and not _leaves_rows(source):
        return _digest(source, files_fingerprint(source))
    return read(source, as_of).fingerprint


def read(source: SourceSpec, as_of: datetime) -> Reading:
    """Return the rows of ``source`` for the night of ``as_of``, and the digest of what was read.

    Raises:
        SourceError: the source cannot be reached or read, or a column is missing.
        ParamsError: the source's settings lack something or hold a password.
    """
    if source.kind == "sql":
        rows, items = read_sql(source, as_of)
    elif source.kind == "shop":
        rows, items = shop_rows(source.shop, as_of), shop_items(source.shop, as_of)
    else:
        rows, items = read_files(source), read_item_files(source)
    rows = _kept(source, rows, as_of)
    if source.kind == "sql" or (source.kind == "file" and _leaves_rows(source)):
        return Reading(rows, items, _digest(source, _contents(rows, items)))
    # Files are looked at after the reading: a file that changed meanwhile shows.
    return Reading(rows, items, fingerprint(source, as_of))


def is_position_ordered(source: SourceSpec) -> bool:
    """Say whether the source's rows have positions in place of moments; the shop's never do."""
    return source.kind != "shop" and source.columns.position is not None


def seconds_of(moment: datetime) -> int:
    """Return a moment as whole seconds since 1970; one without a zone is UTC.

    >>> seconds_of(datetime(1970, 1, 2))
    86400
    """
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _leaves_rows(source: SourceSpec) -> bool:
    return source.later_rows == "leave" and not is_position_ordered(source)


def _kept(source: SourceSpec, rows: pa.Table, as_of: datetime) -> pa.Table:
    """Leave rows after ``as_of`` in the source, where that is asked for; implausible moments stay to be judged."""
    if not _leaves_rows(source):
        return rows
    last = seconds_of(as_of)
    if source.kind == "shop":  # it delivers at midnight, and its fingerprint counts whole days
        last -= last % 86_400
    later = pc.and_(pc.greater(rows["time"], last), pc.less(rows["time"], LAST_PLAUSIBLE))
    return rows.filter(pc.invert(pc.fill_null(later, False)))


def _contents(rows: pa.Table, items: pa.Table | None) -> str:
    return table_digest(rows) + ("" if items is None else table_digest(items))


def _digest(source: SourceSpec, content: str) -> str:
    reading = {
        "kind": source.kind,
        "content": content,
        "columns": source.columns.model_dump(),
        "item_columns": source.item_columns.model_dump(),
        "later_rows": source.later_rows,
    }
    return hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()
