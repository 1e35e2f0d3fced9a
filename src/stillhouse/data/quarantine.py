"""Accepted rows on one side, quarantined rows with their reasons on the other; together the snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stillhouse.data.files import replacing, write_json, write_parquet
from stillhouse.data.night_rows import NightRows
from stillhouse.data.row_rules import RowRule
from stillhouse.data.row_values import Bools, flat
from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.data.threads import each

__all__ = ["ACCEPTED_SCHEMA", "QUARANTINE_SCHEMA", "SEPARATOR", "write_accepted", "write_quarantine"]

#: Columns of every interactions file of the accepted rows.
ACCEPTED_SCHEMA = pa.schema([field for field in SNAPSHOT_SCHEMA if field.name != "unparsed"])

#: Columns of ``rows.parquet``: the snapshot's, and where the row stood and why it is here.
QUARANTINE_SCHEMA = pa.schema([*SNAPSHOT_SCHEMA, ("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])

#: Rows that are written at a time.
_PART = 1 << 16

#: What stands between the reasons of a row that has several.
SEPARATOR = "; "


def write_accepted(folder: Path, rows: NightRows, accepted: Bools, id_length: int) -> None:
    """Write the accepted rows to ``folder`` in the snapshot's files and order; a file without any is left out.

    The item table goes along without the rows that name no item: those whose
    id is null, blank, longer than ``id_length`` or named before.
    """
    (folder / "interactions").mkdir(parents=True)
    table = rows.table.select(ACCEPTED_SCHEMA.names)

    def write(number: int) -> None:
        first, last = int(rows.offsets[number]), int(rows.offsets[number + 1])
        kept = accepted[first:last]
        if kept.any():
            part = table.slice(first, last - first).filter(pa.array(kept))
            write_parquet(folder / rows.files[number], part.cast(ACCEPTED_SCHEMA))

    for _ in each(write, range(len(rows.files))):
        pass
    if rows.items is not None:
        write_parquet(folder / "items.parquet", _named_once(rows.items, id_length))
    about = {"order": rows.order, "rows": int(np.count_nonzero(accepted)), "has_rating": rows.has_rating}
    write_json(folder / "accepted.json", {**about, "has_event": rows.has_event, "has_items": rows.items is not None})


def write_quarantine(
    folder: Path, rows: NightRows, accepted: Bools, rules: Sequence[RowRule], reasons: Mapping[str, int]
) -> None:
    """Write the rows that are not accepted to ``folder``, in the snapshot's order, each with its reasons.

    Args:
        folder: directory to be made: ``rows.parquet`` and ``quarantine.json``.
        rows: the snapshot.
        accepted: [n] rows that stay out of quarantine.
        rules: in the order in which a row's reasons are given.
        reasons: reason → rows that have it; a row with two counts for both.
    """
    folder.mkdir(parents=True)
    where = np.flatnonzero(~accepted)
    form = {"compression": "zstd", "version": "2.6", "store_schema": False}
    # Part by part: as plain text, a whole night of bad rows is gigabytes.
    with replacing(folder / "rows.parquet") as path, pq.ParquetWriter(path, QUARANTINE_SCHEMA, **form) as out:
        for first in range(0, len(where), _PART):
            out.write_table(_bad_rows(rows, where[first : first + _PART], rules))
    write_json(folder / "quarantine.json", {"rows": len(where), "reasons": dict(reasons)})


def _bad_rows(rows: NightRows, where: NDArray[np.int64], rules: Sequence[RowRule]) -> pa.Table:
    part = rows.table.take(pa.array(where)).cast(SNAPSHOT_SCHEMA)
    number = np.searchsorted(rows.offsets, where, side="right") - 1
    columns: dict[str, Any] = {name: part.column(name) for name in SNAPSHOT_SCHEMA.names}
    columns["file"] = pa.array(rows.files, pa.string()).take(pa.array(number))
    columns["row"] = pa.array(where - rows.offsets[number], pa.int64())
    columns["reason"] = _reasons(where, rules)
    return pa.table(columns, schema=QUARANTINE_SCHEMA)


def _reasons(where: NDArray[np.int64], rules: Sequence[RowRule]) -> pa.Array:
    """Return the joined reasons of the rows ``where``; combinations of reasons are few, rows may be millions."""
    broken = [rule for rule in rules if rule.bad.any()]
    if not broken:
        return pa.array([], pa.string())
    flags = np.packbits(np.stack([rule.bad[where] for rule in broken], axis=1), axis=1)
    kinds, which = np.unique(flags, axis=0, return_inverse=True)
    bits = np.unpackbits(kinds, axis=1, count=len(broken)).astype(bool)
    texts = [SEPARATOR.join(rule.reason for rule, on in zip(broken, row, strict=True) if on) for row in bits]
    return pa.array(texts, pa.string()).take(pa.array(which.reshape(-1)))


def _named_once(items: pa.Table, id_length: int) -> pa.Table:
    ids = items.column("item_id").combine_chunks()
    trimmed = pc.utf8_length(pc.utf8_trim_whitespace(ids))
    named = flat(pc.fill_null(pc.and_(pc.greater(trimmed, 0), pc.less_equal(pc.utf8_length(ids), id_length)), False))
    codes = flat(pc.fill_null(ids.dictionary_encode().indices, -1))
    where = np.flatnonzero(named)
    first = where[np.sort(np.unique(codes[where], return_index=True)[1])]
    return items.take(pa.array(first))
