"""The rows of a source in one form: a snapshot's columns, whatever the source called and typed them.

In memory the text columns are dictionary-encoded (ten million rows then take
some 300 MB); on disk they are plain strings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillhouse.data.cells import Column, read_events, read_ids, read_positions, read_ratings, read_times, text_of

__all__ = [
    "ITEM_SCHEMA",
    "SNAPSHOT_SCHEMA",
    "broken_rows",
    "gather",
    "in_canonical_order",
    "interactions_of",
    "items_of",
    "table_digest",
]

#: A snapshot's interactions, on disk.
SNAPSHOT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("time", pa.int64()),
        ("rating", pa.float64()),
        ("event", pa.string()),
        ("unparsed", pa.string()),
    ]
)

#: A snapshot's item table, on disk.
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in ("item_id", "title", "text", "category")])

_ENCODED = pa.dictionary(pa.int32(), pa.string())


def interactions_of(cells: Mapping[str, pa.Array], *, position: bool, typed: bool) -> pa.Table:
    """Return one chunk of a source as snapshot rows, in the source's order.

    Args:
        cells: ``user``, ``item``, ``order`` and, where the source has them,
            ``rating`` and ``event``: Arrow arrays of one length, of any type.
        position: ``order`` holds positions, not moments.
        typed: the source has types of its own; false for CSV, where all is text.

    Returns:
        A table with the columns of `SNAPSHOT_SCHEMA`, text dictionary-encoded.
        A cell that could not be read is null and stands in ``unparsed``, a JSON
        object from column to text.
    """
    count = len(cells["user"])
    columns = {
        "user_id": read_ids(cells["user"], typed),
        "item_id": read_ids(cells["item"], typed),
        "time": read_positions(cells["order"]) if position else read_times(cells["order"]),
        "rating": read_ratings(cells["rating"]) if "rating" in cells else _empty(count, pa.float64()),
        "event": read_events(cells["event"]) if "event" in cells else _empty(count, pa.string()),
    }
    unparsed = _unparsed({name: column.unread for name, column in columns.items()}, count)
    arrays = [_encoded(column.values) for column in columns.values()]
    return pa.table([*arrays, _encoded(unparsed)], names=SNAPSHOT_SCHEMA.names)


def broken_rows(texts: Sequence[str]) -> pa.Table:
    """Return rows that hold nothing but the text of lines that are no rows (too few or too many cells)."""
    unparsed = pa.array([json.dumps({"row": text}, ensure_ascii=False) for text in texts], pa.string())
    empty = {name: pa.nulls(len(texts), SNAPSHOT_SCHEMA.field(name).type) for name in SNAPSHOT_SCHEMA.names[:-1]}
    return pa.table({name: _encoded(array) for name, array in {**empty, "unparsed": unparsed}.items()})


def items_of(cells: Mapping[str, pa.Array], *, separator: str, typed: bool) -> pa.Table:
    """Return one chunk of an item table in the snapshot's form.

    Args:
        cells: ``item`` and, where there are, ``title``, ``text`` and ``category``.
        separator: what stands between several categories; it becomes ``|``. A
            list column needs none.
        typed: as in `interactions_of`.
    """
    count = len(cells["item"])
    texts = {
        name: text_of(cells[name]) if name in cells else pa.nulls(count, pa.string()) for name in ("title", "text")
    }
    category = cells.get("category", pa.nulls(count, pa.string()))
    if pa.types.is_list(category.type) or pa.types.is_large_list(category.type):
        rows = pc.cast(category, pa.list_(pa.string())).to_pylist()
        joined = [None if row is None else "|".join(one for one in row if one is not None) for row in rows]
        category = text_of(pa.array(joined, pa.string()))
    else:
        category = text_of(category)
        if separator != "|":
            category = pc.replace_substring(category, separator, "|")
    columns = [read_ids(cells["item"], typed).values, texts["title"], texts["text"], category]
    blank = pa.scalar(None, pa.string())
    return pa.table([pc.if_else(pc.equal(column, ""), blank, column) for column in columns], schema=ITEM_SCHEMA)


def gather(chunks: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join chunks of rows into one table of one chunk a column, dictionaries unified.

    >>> gather([], ITEM_SCHEMA).num_rows
    0
    """
    if not chunks:
        return schema.empty_table()
    return pa.concat_tables(chunks).unify_dictionaries().combine_chunks()


def in_canonical_order(table: pa.Table) -> pa.Table:
    """Sort rows by time, user, item and the rest, so that a server's row order does not show."""
    first = [name for name in ("time", "user_id", "item_id") if name in table.column_names]
    names = first + [name for name in table.column_names if name not in first]
    keys = [key for name in reversed(names) for key in _sort_keys(table[name].combine_chunks())]
    return table.take(pa.array(np.lexsort(keys)))


def table_digest(table: pa.Table) -> str:
    """Return a SHA-256 over names and values: equal rows in equal order give equal digests."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"{name}:{len(table)}\n".encode())
        for key in _sort_keys(table[name].combine_chunks()):
            digest.update(np.ascontiguousarray(key).tobytes())
        array = table[name].combine_chunks()
        if not _is_number(array.type):
            for text in _sorted_values(array).to_pylist():
                digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def _sort_keys(array: pa.Array) -> list[npt.NDArray[np.generic]]:
    """Return the values' places in sorted order (numbers: themselves) and which are null; nulls come last."""
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if _is_number(array.type):
        return [pc.fill_null(array, 0).to_numpy(zero_copy_only=False), missing]
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    place = pc.fill_null(pc.index_in(coded.dictionary, _sorted_values(array)), 0).to_numpy(zero_copy_only=False)
    codes = np.zeros(len(array), np.int32)
    present = ~missing
    codes[present] = place[coded.indices.drop_null().to_numpy()]
    return [codes, missing]


def _sorted_values(array: pa.Array) -> pa.Array:
    values = pc.unique(array)
    values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    values = values.drop_null()
    return values.take(pc.sort_indices(values))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _encoded(array: pa.Array) -> pa.Array:
    return array.dictionary_encode().cast(_ENCODED) if array.type == pa.string() else array


def _empty(count: int, kind: pa.DataType) -> Column:
    return Column(pa.nulls(count, kind), pa.nulls(count, pa.string()))


def _unparsed(unread: Mapping[str, pa.Array], count: int) -> pa.Array:
    """Write what was not read as JSON, row by row; rows without such a cell cost nothing."""
    found: dict[int, dict[str, str]] = {}
    for name, texts in unread.items():
        for row in np.flatnonzero(pc.is_valid(texts).to_numpy(zero_copy_only=False)).tolist():
            found.setdefault(row, {})[name] = texts[row].as_py()
    if not found:
        return pa.nulls(count, pa.string())
    lines: list[str | None] = [None] * count
    for row, cells in found.items():
        lines[row] = json.dumps(cells, sort_keys=True, ensure_ascii=False)
    return pa.array(lines, pa.string())
