"""Writing files that a kill cannot cut off, and the digests of what was written.

A single file is written beside its final name, flushed to disk and moved into
place, so that a reader finds either the old bytes or the new ones. What is
written is a function of the values alone: sorted keys, fixed compression, no
timestamps.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.errors import DataError, one_line

__all__ = [
    "NONE",
    "NONE_BYTES",
    "damaged",
    "is_none",
    "md5_file",
    "md5_of_files",
    "numbers_of",
    "read_json",
    "read_parquet",
    "replacing",
    "sha256_file",
    "sha256_tree",
    "write_bytes",
    "write_json",
    "write_none",
    "write_parquet",
]

#: The only file of a ``previous/`` directory that holds nothing from last night.
NONE = "none.json"
#: What stands in it.
NONE_BYTES = b'{\n "none": true\n}\n'

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on success its bytes become ``path`` at once.

    Several threads and processes may write one path: each has a name of its own, and the last to end stands.
    The temporary file is flushed to disk before the move, so that a power cut
    leaves no empty file under the final name. On an error it is removed and
    ``path`` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON atomically: sorted keys, one space of indent, a newline at the end.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def read_json(path: Path) -> Any:
    """Return the JSON value in the file at ``path``."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """Return one SHA-256 over every file below ``path``: sorted relative names and contents.

    A single file stands for itself. Empty folders, times and permissions do
    not count.
    """
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    for name, file in files:
        digest.update(f"{sha256_file(file)}  {name}\n".encode())
    return digest.hexdigest()


def md5_of_files(path: Path) -> dict[str, str]:
    """Return relative name → MD5 of every file below ``path``: the names that DVC knows their contents by."""
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    return {name: md5_file(file) for name, file in files}


def md5_file(path: Path) -> str:
    """Return the MD5 of the file's bytes: the name that DVC knows them by."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def is_none(path: Path) -> bool:
    """Say whether the directory ``path`` stands for *nothing from last night*."""
    return (path / NONE).is_file()


def write_none(path: Path) -> None:
    """Make the directory ``path`` stand for *nothing from last night*."""
    path.mkdir(parents=True, exist_ok=True)
    write_bytes(path / NONE, NONE_BYTES)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write ``table`` as Parquet atomically; equal tables give equal bytes.

    Metadata of the schema (where pandas keeps its index) is left out, and the
    table is brought to one chunk first: how it was put together must not show.
    """
    plain = table.replace_schema_metadata(None).combine_chunks()
    with replacing(path) as temporary:
        pq.write_table(plain, temporary, compression="zstd", compression_level=3, version="2.6", store_schema=False)


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Return the columns of ``schema`` in a file of ours, as ``schema`` has them.

    Arrow's own reader of tables sees a dataset in every file, which loads pandas: a third of a second in each process.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: it lacks a column.
        pyarrow.ArrowInvalid, OSError: it is no Parquet, is damaged, or a column cannot be what ``schema`` says.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns=schema.names).select(schema.names).cast(schema)


def damaged(what: str, directory: Path, error: Exception) -> DataError:
    """Return the known error that a file of what the stage prepare made cannot be read.

    Args:
        what: is in ``directory``, such as ``a vocabulary``.
        directory: where it lies.
        error: what reading it raised.
    """
    found = f"the files of {what} must be whole, found {error!r} in {directory}: run the stage prepare again"
    return DataError(one_line(found))


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers, none of them null, as an array; Arrow's own way there loads pandas as well."""
    numbers: npt.NDArray[Any] = np.from_dlpack(column.combine_chunks())
    return numbers
