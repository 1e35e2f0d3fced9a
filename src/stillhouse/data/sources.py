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
    its days), and how the columns are read. ``as_of`` counts where it decides
    what is read: for the shop, for a query that names it, and where later rows
    are left in the source.

    Raises:
        SourceError: the source cannot be reached or read.
        ParamsError: the source's settings lack something or hold a password.
    """
    if source.kind == "shop":
        return _digest(source, as_of, shop_fingerprint(source.shop, as_of))
    if source.kind == "file":
        return _digest(source, as_of, files_fingerprint(source))
    return _read_sql(source, as_of).fingerprint


def read(source: SourceSpec, as_of: datetime) -> Reading:
    """Return the rows of ``source`` for the night of ``as_of``, and the digest of what was read.

    Raises:
        SourceError: the source cannot be reached or read, or a column is missing.
        ParamsError: the source's settings lack something or hold a password.
    """
    if source.kind == "sql":
        return _read_sql(source, as_of)
    if source.kind == "shop":
        rows, items = shop_rows(source.shop, as_of), shop_items(source.shop, as_of)
    else:
        rows, items = read_files(source), read_item_files(source)
    # Files are looked at after the reading: a file that changed meanwhile shows.
    return Reading(_kept(source, rows, as_of), items, fingerprint(source, as_of))


def is_position_ordered(source: SourceSpec) -> bool:
    """Say whether the source's rows have positions in place of moments; the shop's never do."""
    return source.kind != "shop" and source.columns.position is not None


def seconds_of(moment: datetime) -> int:
    """Return a moment as whole seconds since 1970; one without a zone is UTC.

    >>> seconds_of(datetime(1970, 1, 2))
    86400
    """
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _read_sql(source: SourceSpec, as_of: datetime) -> Reading:
    rows, items = read_sql(source, as_of)
    rows = _kept(source, rows, as_of)
    content = table_digest(rows) + ("" if items is None else table_digest(items))
    return Reading(rows, items, _digest(source, as_of, content))


def _kept(source: SourceSpec, rows: pa.Table, as_of: datetime) -> pa.Table:
    """Leave rows after ``as_of`` in the source, where that is asked for; implausible moments stay to be judged."""
    if source.later_rows == "quarantine" or is_position_ordered(source):
        return rows
    later = pc.and_(pc.greater(rows["time"], seconds_of(as_of)), pc.less(rows["time"], LAST_PLAUSIBLE))
    return rows.filter(pc.invert(pc.fill_null(later, False)))


def _digest(source: SourceSpec, as_of: datetime, content: str) -> str:
    reading = {
        "kind": source.kind,
        "content": content,
        "columns": source.columns.model_dump(),
        "item_columns": source.item_columns.model_dump(),
        "as_of": seconds_of(as_of) if source.later_rows == "leave" else None,
        "later_rows": source.later_rows,
    }
    return hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()
