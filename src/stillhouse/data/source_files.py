"""Interactions and items from files: CSV or Parquet, one or a folder of them, sorted by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.data.files import sha256_file
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA, broken_rows, gather, interactions_of, items_of
from stillhouse.data.source_columns import interaction_roles, item_roles, require
from stillhouse.data.source_csv import is_csv, read_csv
from stillhouse.errors import ParamsError, SourceError, one_line
from stillhouse.params.source import SourceSpec

__all__ = ["files_fingerprint", "read_files", "read_item_files", "source_files"]

_PARQUET = (".parquet", ".pq")


def source_files(path: Path, without: Path | None = None, setting: str = "path") -> list[Path]:
    """Return the files that ``path`` stands for: itself, or those below it in order of their names.

    Args:
        path: a file or a folder; files that start with ``.`` or ``_`` do not count.
        without: a file that is something else (the item table in the same folder).
        setting: what names ``path`` among the source's settings.

    Raises:
        SourceError: nothing is there, or nothing that can be read.
    """
    if path.is_file():
        if not _readable(path):
            raise SourceError(f"a source file must end in .csv, .tsv (also .gz) or .parquet, got {path}: rename it")
        return [path]
    if not path.is_dir():
        raise SourceError(f"the source must exist, found nothing at {path} (params.yaml: source.{setting})")
    files = [file for file in _below(path) if file.is_file() and _readable(file) and not _hidden(file, path)]
    if without is not None:
        files = [file for file in files if file.resolve() != without.resolve()]
    if not files:
        raise SourceError(f"a source folder must hold .csv, .tsv or .parquet files, found none in {path}")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _below(folder: Path) -> Iterator[Path]:
    """Give every file below ``folder``, those of folders that it links to too; none is entered twice."""
    entered: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()  # by which of two names a folder is entered must not be the file system's affair
        yield from (Path(here, name) for name in files)


def files_fingerprint(source: SourceSpec) -> str:
    """Return a digest of the contents of every file of ``source``, in reading order, items included."""
    digest = hashlib.sha256()
    path, items = _paths(source)
    for part, files in (
        ("rows", source_files(path, items)),
        ("items", [] if items is None else source_files(items, setting="items_path")),
    ):
        for file in files:
            digest.update(f"{part} {_suffix(file)} {_sha256(file)}\n".encode())
    return digest.hexdigest()


def read_files(source: SourceSpec) -> pa.Table:
    """Return the interactions of a file source in the order of names and lines.

    Raises:
        SourceError: a file is empty, not UTF-8, damaged, or lacks a column.
    """
    path, items = _paths(source)
    roles = interaction_roles(source.columns)
    position = source.columns.position is not None
    chunks: list[pa.Table] = []
    for file in source_files(path, items):
        broken: list[str] = []
        convert: Callable[[dict[str, pa.Array], bool], pa.Table]
        convert = lambda cells, typed: interactions_of(cells, position=position, typed=typed)  # noqa: E731
        chunks.extend(_chunks(file, roles, "columns", convert, broken))
        if broken:
            chunks.append(broken_rows(broken))
    return gather(chunks, SNAPSHOT_SCHEMA)


def read_item_files(source: SourceSpec) -> pa.Table | None:
    """Return the item table of a file source, or None where it names none.

    Raises:
        SourceError: as `read_files`; also a line with too few or too many cells.
    """
    _, path = _paths(source)
    if path is None:
        return None
    roles, separator = item_roles(source.item_columns), source.item_columns.separator
    chunks: list[pa.Table] = []
    for file in source_files(path, setting="items_path"):
        broken: list[str] = []
        chunks.extend(
            _chunks(
                file,
                roles,
                "item_columns",
                lambda cells, typed: items_of(cells, separator=separator, typed=typed),
                broken,
            )
        )
        if broken:
            raise SourceError(
                one_line(f"each line of {file} must have a cell a column, found {broken[0]!r}: mend or quote it")
            )
    return gather(chunks, ITEM_SCHEMA)


def _chunks(
    file: Path,
    roles: dict[str, str],
    section: str,
    convert: Callable[[dict[str, pa.Array], bool], pa.Table],
    broken: list[str],
) -> Iterator[pa.Table]:
    typed = not is_csv(file)
    read = _read_parquet(file, roles, section) if typed else read_csv(file, roles, section, broken)
    for cells in read:
        try:
            yield convert(cells, typed)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise SourceError(one_line(f"columns of {file} must hold text, numbers or dates: {error}")) from None


def _read_parquet(file: Path, roles: dict[str, str], section: str) -> Iterator[dict[str, pa.Array]]:
    try:
        with pq.ParquetFile(file) as opened:
            require(roles, opened.schema_arrow.names, str(file), section)
            for batch in opened.iter_batches(batch_size=1 << 20, columns=sorted(set(roles.values()))):
                for name in batch.schema.names:
                    _check_text(batch.column(name), name, file)
                yield {role: _plain(batch.column(name)) for role, name in roles.items()}
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(one_line(f"{file} must be a whole Parquet file: {error}")) from None


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _check_text(array: pa.Array, name: str, file: Path) -> None:
    """Arrow trusts a Parquet file's text to be UTF-8; look before anything reads it."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raise SourceError(
            f"{file} must be UTF-8, found other bytes in the column {name!r}: write it again as UTF-8"
        ) from None


def _paths(source: SourceSpec) -> tuple[Path, Path | None]:
    if source.path is None:
        raise ParamsError("path must name a file or a folder for a source of kind file, found nothing (source.path)")
    return Path(source.path), None if source.items_path is None else Path(source.items_path)


def _readable(path: Path) -> bool:
    return is_csv(path) or path.suffix.lower() in _PARQUET


def _suffix(path: Path) -> str:
    return "text" if is_csv(path) else "parquet"


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise SourceError(one_line(f"{path} must be readable: {error.strerror}")) from None
