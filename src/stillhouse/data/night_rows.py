"""A snapshot's rows in memory, column by column, with ids and event types as integer codes.

Ten million rows of text are gigabytes as Python strings and a few hundred
megabytes as codes into a dictionary; what is true of an id (blank, too long,
known to the item table) is then worked out once an id and looked up a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stillhouse.data.columns import CODED_TEXT, Coded, join
from stillhouse.data.files import read_json, read_parquet
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA
from stillhouse.data.threads import each

__all__ = ["CODED", "NightRows", "read_snapshot"]

#: Columns that are held as codes into a dictionary.
CODED = ("user_id", "item_id", "event")


@dataclass(frozen=True)
class NightRows:
    """Every row of one snapshot, in the snapshot's order: files by name, rows as they stand."""

    table: pa.Table
    """The columns of `SNAPSHOT_SCHEMA`, each one chunk; those of `CODED` dictionary-encoded."""
    coded: Mapping[str, Coded]
    """The columns of `CODED` once more, sharing their codes with ``table``."""
    files: tuple[str, ...]
    """Files of interactions, relative to the snapshot, in order."""
    offsets: NDArray[np.int64]
    """[files + 1] first row of each file; the last entry is the number of rows."""
    broken: Mapping[str, str]
    """File → how its columns differ from `SNAPSHOT_SCHEMA`; its rows count, with every cell null where it differs."""
    items: pa.Table | None
    """The item table as it came, or none."""
    order: str
    """``timestamp`` or ``position``: what the column ``time`` holds."""
    has_rating: bool
    has_event: bool

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.offsets[-1])

    def codes(self, column: str) -> NDArray[np.int32]:
        """Return the dictionary code of each row of a coded ``column``; -1 where it is null. Shape [n]."""
        return self.coded[column].codes

    def names(self, column: str) -> pa.Array:
        """Return the distinct values of a coded ``column``, in the order of their codes."""
        return self.coded[column].names

    def values(self, column: str) -> pa.Array:
        """Return ``column`` as one Arrow array of n values."""
        return self._chunk(column)

    def value(self, column: str, row: int) -> Any:
        """Return one cell as a Python value."""
        return self._chunk(column)[row].as_py()

    def place(self, row: int) -> tuple[str, int]:
        """Return the file that holds ``row`` and the row's number in it, from 0."""
        number = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return self.files[number], row - int(self.offsets[number])

    def _chunk(self, column: str) -> pa.Array:
        return self.table.column(column).chunk(0)


def read_snapshot(snapshot: Path) -> NightRows:
    """Read the snapshot in the directory ``snapshot``.

    A file whose columns are not those of `SNAPSHOT_SCHEMA` is not an error
    here: it is reported in `NightRows.broken`, so that the evidence is kept.
    """
    about = read_json(snapshot / "snapshot.json")
    paths = sorted((snapshot / "interactions").glob("*.parquet"))
    files = tuple(path.relative_to(snapshot).as_posix() for path in paths)
    faults: list[str] = []
    offsets = np.cumsum([0, *(pq.read_metadata(path).num_rows for path in paths)], dtype=np.int64)
    joined = join(_tables(paths, faults), _CODED_SCHEMA, int(offsets[-1]))
    items_path = snapshot / "items.parquet"
    return NightRows(
        table=joined.table(_CODED_SCHEMA),
        coded=joined.coded,
        files=files,
        offsets=offsets,
        broken={file: fault for file, fault in zip(files, faults, strict=True) if fault},
        items=_read_items(items_path) if about["has_items"] else None,
        order=about["order"],
        has_rating=about["has_rating"],
        has_event=about["has_event"],
    )


def _tables(paths: list[Path], faults: list[str]) -> Iterator[pa.Table]:
    for table, fault in each(_read_file, paths):
        faults.append(fault)
        yield table


def _read_file(path: Path) -> tuple[pa.Table, str]:
    names = pq.read_schema(path).names
    with pq.ParquetFile(path, read_dictionary=[name for name in CODED if name in names]) as file:
        found = file.schema_arrow
        table = file.read(use_threads=False)  # other files are read meanwhile
    faults = []
    columns = []
    for field in _CODED_SCHEMA:
        where = found.get_field_index(field.name)
        if where >= 0 and found.field(where).type == field.type:
            columns.append(table.column(field.name))
            continue
        faults.append(f"{field.name} is {found.field(where).type}" if where >= 0 else f"{field.name} is missing")
        columns.append(pa.nulls(table.num_rows, pa.string()).dictionary_encode() if field.name in CODED else None)
        if columns[-1] is None:
            columns[-1] = pa.nulls(table.num_rows, field.type)
    return pa.table(columns, schema=_CODED_SCHEMA), ", ".join(faults)


_CODED_SCHEMA = pa.schema(
    [(field.name, CODED_TEXT if field.name in CODED else field.type) for field in SNAPSHOT_SCHEMA]
)


def _read_items(path: Path) -> pa.Table:
    if not path.is_file():
        return ITEM_SCHEMA.empty_table()
    return read_parquet(path, ITEM_SCHEMA)
