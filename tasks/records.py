"""The records of registered students (``lineage.json``), kept at hand under their own hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.lineage import statement
from stillhouse.runner.stage import STATE
from stillhouse.tracking.registry import VersionInfo, statement_of

__all__ = ["keep_record", "record_bytes", "record_of_version", "records"]

#: Records that a server is asked for at once.
_AT_ONCE = 8


def record_bytes(root: Path, info: VersionInfo) -> bytes:
    """Return the bytes of ``lineage.json`` of a version, as the registry's tag names them.

    A copy that was read before is used where it hashes to that name; the registry's own files are then not looked at.

    Raises:
        RegistryError: the file is gone.
        AlteredError: it is not what was registered.
    """
    copy = _copy(root, info.statement)
    if copy.exists() and hashlib.sha256(data := copy.read_bytes()).hexdigest() == info.statement:
        return data
    data = statement_of(root, info)
    keep_record(root, data)
    return data


def keep_record(root: Path, data: bytes) -> None:
    """Keep a copy of a record, so that nobody here need ask the registry for it."""
    copy = _copy(root, hashlib.sha256(data).hexdigest())
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(data)  # not flushed: a copy that a kill cut off does not hash to its name


def _copy(root: Path, digest: str) -> Path:
    return root / STATE / "records" / f"{digest}.json"


def records(
    root: Path, known: Iterable[VersionInfo], read: Callable[[Path, VersionInfo], bytes] = record_bytes
) -> Iterator[bytes]:
    """Give the record of each version, in their order; several at once, for a server's answer is mostly waited for.

    Args:
        root: the workspace.
        known: versions.
        read: what reads one.

    Raises:
        RegistryError: as `record_bytes`; what was not asked for by then is not asked for any more.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="records") as pool:
        yield from pool.map(partial(read, root), known)


def record_of_version(root: Path, info: VersionInfo) -> dict[str, Any]:
    """Return what ``lineage.json`` of a version says: the predicate.

    Raises:
        RegistryError: as `record_bytes`, or the file is no record.
    """
    return dict(statement.read(record_bytes(root, info), f"lineage.json of version {info.version}")["predicate"])
