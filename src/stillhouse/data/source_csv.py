"""CSV as text: every cell comes back as a string, so that no cell can stop the reading.

Arrow splits the lines; what it would lose without a word is caught here: bytes
that are not UTF-8 (named by their offset), lines with too few or too many
cells (handed back as text), a quote that is never closed, and one that another
closes lines later, with all the rows between them in one cell.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from stillhouse.data.cells import LONGEST_TEXT
from stillhouse.data.source_columns import require
from stillhouse.errors import SourceError, one_line

__all__ = ["is_csv", "read_csv"]

_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_BLOCK = 16 << 20
#: Roles whose cells may run over several lines.
_FREE_TEXT = ("title", "text")
#: How much of what has taken rows in is shown.
_SHOWN = 60
#: A cell that no file holds: a last line of it shows that every quote was closed.
_END = "\x1eend of file\x1e"


def is_csv(path: Path) -> bool:
    """Say whether the name of ``path`` is that of a CSV or TSV file, compressed or not."""
    return path.name.lower().endswith(_SUFFIXES)


def read_csv(file: Path, roles: dict[str, str], section: str, broken: list[str]) -> Iterator[dict[str, pa.Array]]:
    """Give the file in chunks: role → string array; an empty cell is null.

    Args:
        file: the file; tabs part the cells where its name says ``.tsv``, commas elsewhere.
        roles: role → column name.
        section: the part of the source's settings that names columns.
        broken: receives the text of each line that has too few or too many cells.

    Raises:
        SourceError: the file is empty, not UTF-8, lacks a column, ends within a quote, or has a cell of a role other
            than free text, or a broken line, that holds a whole row more.
    """
    delimiter = "\t" if ".tsv" in file.name.lower() else ","
    header = _header(file, delimiter)
    require(roles, header, str(file), section)
    names = sorted(set(roles.values()))
    closed = False
    with _opened(file) as raw:
        watched = _Watched(raw, file, (delimiter.join([_END] * len(header)) + "\n").encode())
        for batch in _batches(watched, file, names, (delimiter, len(header)), broken):
            cells = {role: batch.column(name) for role, name in roles.items()}
            last = next(iter(cells.values()))
            if len(last) and last[-1].as_py() == _END:
                closed = True
                cells = {role: cells[role].slice(0, len(last) - 1) for role in cells}
            for role, cell in cells.items():
                if role not in _FREE_TEXT:
                    _require_no_row_in(role, cell, delimiter, len(header), file)
            yield cells
    if not closed:
        raise SourceError(f"every quote must be closed, found one still open at the end of {file}: close or double it")


def _header(file: Path, delimiter: str) -> list[str]:
    try:
        with _opened(file) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            return next((row for row in csv.reader(text, delimiter=delimiter) if row), None) or _empty(file)
    except UnicodeDecodeError:
        with _opened(file) as raw:
            watched = _Watched(raw, file, b"")
            while watched.read(_BLOCK):
                pass
        raise
    except (csv.Error, OSError) as error:
        raise SourceError(one_line(f"the first line of {file} must name the columns: {error}")) from None


def _empty(file: Path) -> list[str]:
    raise SourceError(f"the source must hold rows, found an empty file at {file}")


def _batches(
    watched: _Watched, file: Path, names: list[str], form: tuple[str, int], broken: list[str]
) -> Iterator[pa.RecordBatch]:
    swallowed: list[str] = []
    delimiter, columns = form

    def keep(row: pacsv.InvalidRow) -> str:
        broken.append(row.text[:LONGEST_TEXT])
        if _several(row.text) and row.text.count(delimiter) >= 2 * (columns - 1):
            swallowed.append(row.text)
        return "skip"

    try:
        for batch in pacsv.open_csv(
            watched,
            read_options=pacsv.ReadOptions(block_size=_BLOCK, use_threads=True),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep),
            convert_options=pacsv.ConvertOptions(
                check_utf8=False,  # the stream has been looked at
                column_types={name: pa.string() for name in names},
                include_columns=names,
                strings_can_be_null=True,
                null_values=[""],
            ),
        ):
            if swallowed:
                raise _astray("a line with too few or too many cells", swallowed[0], file)
            yield batch
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(one_line(f"{file} must be CSV with a header: {error}")) from None


def _require_no_row_in(role: str, cells: pa.Array, delimiter: str, columns: int, file: Path) -> None:
    """Refuse a cell over several lines that holds what parts the cells of a row: a quote gone astray has taken rows in.

    An id may hold a line end, or a delimiter; all that makes a row it will not.
    """
    _, offsets, data = cells.buffers()
    if data is None or not len(cells):
        return
    bounds = np.frombuffer(offsets, np.int32)[cells.offset : cells.offset + len(cells) + 1]
    held = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    ends = np.flatnonzero((held == ord("\n")) | (held == ord("\r")))
    for row in np.unique(np.searchsorted(bounds, bounds[0] + ends, side="right") - 1).tolist():
        text = cells[row].as_py()
        if text.count(delimiter) >= max(1, columns - 1):
            raise _astray(f"a cell of the {role}", text, file)


def _several(text: str) -> bool:
    return "\n" in text or "\r" in text


def _astray(what: str, text: str, file: Path) -> SourceError:
    return SourceError(
        one_line(
            f"{what} must hold no other row, found one that runs over {len(text.splitlines()):,} lines and begins with "
            f"{text[:_SHOWN]!r} in {file}: a quote stands there that another closes later; close it or double it"
        )
    )


def _opened(file: Path) -> Any:
    try:
        return pa.input_stream(str(file), compression="detect")
    except OSError as error:
        raise SourceError(one_line(f"{file} must be readable: {error}")) from None


class _Watched(io.RawIOBase):
    """A file's bytes, checked to be UTF-8 as they pass, then one closing line."""

    def __init__(self, raw: Any, file: Path, closing: bytes) -> None:
        self._raw, self._file, self._closing = raw, file, closing
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._offset = 0
        self._ahead: bytes | None = None

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, the closing line behind the last of them, then nothing."""
        data = self._next(size) if self._ahead is None else self._ahead
        self._ahead = self._next(size) if data else b""
        if not self._ahead and self._closing:
            data, self._closing = data + b"\n" + self._closing, b""
        return data

    def _next(self, size: int | None) -> bytes:
        data = bytes(self._raw.read(size if size and size > 0 else _BLOCK))
        self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        waiting = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._offset - waiting + error.start
            raise SourceError(
                f"{self._file} must be UTF-8, found the byte 0x{error.object[error.start]:02x} "
                f"at offset {at}: write it again as UTF-8"
            ) from None
        self._offset += len(data)
