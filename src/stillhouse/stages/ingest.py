"""The stage ``ingest``: from a source up to ``as_of`` to an immutable snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillhouse.data.files import write_json, write_parquet
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA
from stillhouse.data.sources import LAST_PLAUSIBLE, fingerprint, is_position_ordered, read
from stillhouse.errors import SourceError
from stillhouse.params.ingest import IngestParams
from stillhouse.reporting import Reporter

__all__ = ["ingest"]

_DAY = 86_400
#: The file of rows without a plausible day.
_UNDATED = "undated"


def ingest(*, snapshot: Path, params: IngestParams, reporter: Reporter) -> Mapping[str, int]:
    """Read the night's source into a snapshot: Parquet, one file an event day.

    A file holds the rows of its day in the source's order and nothing of the
    night, so that nights share the files of days that did not change.

    Args:
        snapshot: the directory to make: ``interactions/``, ``items.parquet`` where
            there is an item table, and ``snapshot.json``.
        params: the night's source, ``as_of`` and fingerprint.
        reporter: told how far the reading is.

    Returns:
        ``rows``, ``days`` (event days with rows), ``undated`` rows, ``items`` of the
        catalogue and ``items_dropped`` (rows of the item table without an id or
        with one that stood before).

    Raises:
        SourceError: the source cannot be read, holds no rows, or is not what it
            was when the night was opened.
        ParamsError: the source's settings lack something or hold a password.
    """
    if params.source.kind != "sql":  # a database is read once: what was read is compared
        _check_unchanged(fingerprint(params.source, params.as_of), params)
    reading = read(params.source, params.as_of)
    _check_unchanged(reading.fingerprint, params)
    rows = reading.interactions
    if not len(rows):
        place = params.source.path or params.source.query or "the shop"
        raise SourceError(
            f"the source must hold rows up to {params.as_of.isoformat()}, found none ({place}): "
            "look at the source, or at --as-of"
        )
    reporter.note(f"{len(rows):,} rows read")
    (snapshot / "interactions").mkdir(parents=True)
    position = is_position_ordered(params.source)
    days = _write_days(rows, snapshot / "interactions", position, reporter)
    items = None if reading.items is None else _known_once(reading.items)
    if items is not None:
        write_parquet(snapshot / "items.parquet", items)
    write_json(snapshot / "snapshot.json", _header(params, len(rows), items is not None))
    dropped = 0 if items is None or reading.items is None else len(reading.items) - len(items)
    if dropped:
        reporter.note(f"{dropped:,} rows of the item table have no id, or one that stood before: left out")
    undated = days.pop(_UNDATED, 0)
    return {
        "rows": len(rows),
        "days": len(days),
        "undated": undated,
        "items": 0 if items is None else len(items),
        "items_dropped": dropped,
    }


def _check_unchanged(found: str, params: IngestParams) -> None:
    if found != params.fingerprint:
        raise SourceError(
            f"the source must be what it was when the night was opened (fingerprint {params.fingerprint[:12]}), "
            f"found another ({found[:12]}): put the source back as it was, "
            "or give `stillhouse run` once more to take it as it is now"
        )


def _header(params: IngestParams, rows: int, has_items: bool) -> dict[str, object]:
    shop, columns = params.source.kind == "shop", params.source.columns
    return {
        "order": "position" if is_position_ordered(params.source) else "timestamp",
        "rows": rows,
        "has_rating": shop or columns.rating is not None,
        "has_event": shop or columns.event is not None,
        "has_items": has_items,
    }


def _write_days(rows: pa.Table, folder: Path, position: bool, reporter: Reporter) -> dict[str, int]:
    """Write one file a day and return day → rows."""
    written: dict[str, int] = {}
    parts = list(_by_day(rows["time"], position))
    with reporter.progress("ingest", len(parts)) as progress:
        for name, places in parts:
            # Plain strings, not dictionaries: another day's words must not show in this day's bytes.
            day = rows.take(pa.array(places)).cast(SNAPSHOT_SCHEMA)
            write_parquet(folder / f"{name}.parquet", day)
            written[name] = len(places)
            progress.advance()
    return written


def _by_day(times: pa.ChunkedArray, position: bool) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Give day → row numbers in the source's order; rows without a plausible moment come first, as undated."""
    seconds = pc.fill_null(times, -1).to_numpy()
    dated = (seconds >= 0) & (seconds < LAST_PLAUSIBLE) & (not position)
    day = np.where(dated, seconds // _DAY, -1).astype(np.int32)
    order = np.argsort(day, kind="stable")
    edges = np.flatnonzero(np.diff(day[order])) + 1
    for places in np.split(order, edges):
        number = int(day[places[0]])
        yield _UNDATED if number < 0 else str(np.datetime64(number, "D")), places


def _known_once(items: pa.Table) -> pa.Table:
    """Leave out item rows without an id, and all but the first of an id."""
    ids = items["item_id"].combine_chunks()
    codes = ids.dictionary_encode().indices
    first = np.unique(pc.fill_null(codes, -1).to_numpy(), return_index=True)
    places = np.sort(first[1][first[0] >= 0])
    return items.take(pa.array(places)).cast(ITEM_SCHEMA)
