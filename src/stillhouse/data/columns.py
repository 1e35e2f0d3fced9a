"""Many files' columns joined into one array each, while the files are still being read.

A file's own columns go as soon as they are copied: at no time do all of them
stand in memory beside the joined ones, which is as large again and, on ten
million rows, costs more time in the kernel than the reading itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CODED_TEXT", "Coded", "Joined", "join"]

#: The Arrow type of text that is held as codes.
CODED_TEXT = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of text as codes into its distinct values."""

    codes: npt.NDArray[np.int32]
    """[n] code of each row; -1 where it is null."""
    names: pa.Array
    """Distinct values in the order in which they first stand in a file, file by file."""

    @property
    def missing(self) -> int:
        """Number of rows where it is null."""
        return int(np.count_nonzero(self.codes < 0))

    def array(self) -> pa.DictionaryArray:
        """Return the column as Arrow has it; the codes are shared, not copied."""
        missing = self.codes < 0
        indices = pa.array(self.codes, mask=missing if missing.any() else None)
        return pa.DictionaryArray.from_arrays(indices, self.names, safe=False)


@dataclass(frozen=True)
class Joined:
    """The columns of all files, rows in the files' order."""

    coded: Mapping[str, Coded]
    """Text columns that the files hold dictionary-encoded."""
    plain: Mapping[str, pa.Array]
    """The others."""

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the columns that ``schema`` names, one chunk each."""
        arrays = [self.coded[name].array() if name in self.coded else self.plain[name] for name in schema.names]
        return pa.table(arrays, schema=schema)


def join(tables: Iterable[pa.Table], schema: pa.Schema, rows: int) -> Joined:
    """Join tables one below the other.

    Args:
        tables: one after the other, each with the columns of ``schema``; none is kept.
        schema: columns of type `CODED_TEXT`, int64, float64 or string.
        rows: number of rows of all tables together.
    """
    columns = {field.name: _column(field.type, rows) for field in schema}
    for table in tables:
        for name, column in columns.items():
            for chunk in table.column(name).chunks:
                column.add(chunk)
    coded = {name: column.done() for name, column in columns.items() if isinstance(column, _Codes)}
    return Joined(coded, {name: column.done() for name, column in columns.items() if not isinstance(column, _Codes)})


def _column(kind: pa.DataType, rows: int) -> _Codes | _Numbers | _Texts:
    if kind == CODED_TEXT:
        return _Codes(rows)
    return _Texts(kind) if kind == pa.string() else _Numbers(kind, rows)


class _Codes:
    def __init__(self, rows: int) -> None:
        self._codes = np.empty(rows, np.int32)
        self._ends = [0]
        self._names: list[pa.Array] = []

    def add(self, chunk: pa.DictionaryArray) -> None:
        """Copy the chunk's own codes."""
        _fill(self._codes, self._ends[-1], chunk.indices, -1)
        self._ends.append(self._ends[-1] + len(chunk))
        self._names.append(chunk.dictionary)

    def done(self) -> Coded:
        """Turn each chunk's codes into those of all chunks together."""
        # Dictionaries of codes 0, 1, 2 ...: what unifying makes of those is where each code goes.
        own = [pa.DictionaryArray.from_arrays(np.arange(len(names), dtype=np.int32), names) for names in self._names]
        unified = pa.chunked_array(own, CODED_TEXT).unify_dictionaries().chunks
        for start, end, chunk in zip(self._ends[:-1], self._ends[1:], unified, strict=True):
            moved = np.append(chunk.indices.to_numpy(), np.int32(-1))  # code -1 looks up the last entry
            self._codes[start:end] = moved[self._codes[start:end]]
        self._codes.setflags(write=False)  # shared from here on
        return Coded(self._codes, unified[0].dictionary if unified else pa.array([], pa.string()))


class _Numbers:
    def __init__(self, kind: pa.DataType, rows: int) -> None:
        self._kind = kind
        self._values = np.empty(rows, kind.to_pandas_dtype())
        self._missing = np.zeros(rows, bool)
        self._end = 0

    def add(self, chunk: pa.Array) -> None:
        """Copy the chunk."""
        if chunk.null_count:
            self._missing[self._end : self._end + len(chunk)] = pc.is_null(chunk).to_numpy(zero_copy_only=False)
        _fill(self._values, self._end, chunk, 0)
        self._end += len(chunk)

    def done(self) -> pa.Array:
        """Return the column; the numbers are shared, not copied."""
        mask = self._missing if self._missing.any() else None
        return pa.array(self._values, self._kind, mask=mask, from_pandas=False)


class _Texts:
    def __init__(self, kind: pa.DataType) -> None:
        self._chunks = [pa.array([], kind)]

    def add(self, chunk: pa.Array) -> None:
        """Keep the chunk."""
        self._chunks.append(chunk)

    def done(self) -> pa.Array:
        """Return the column."""
        return pa.concat_arrays(self._chunks)


def _fill(into: npt.NDArray[Any], start: int, chunk: pa.Array, null: int) -> None:
    whole = pc.fill_null(chunk, null) if chunk.null_count else chunk
    into[start : start + len(chunk)] = whole.to_numpy()
