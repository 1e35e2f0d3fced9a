"""The store's safetensors files: written atomically, mapped into memory, checked before use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from stillhouse.data.files import sha256_file, write_bytes
from stillhouse.distill.store_format import INDEX, ShardEntry, StoreHeader
from stillhouse.errors import StoreError, one_line

__all__ = ["checked_shard", "map_tensors", "read_index", "write_tensors"]

_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I64": np.int64, "F16": np.float16, "F32": np.float32}
_AGAIN = "the file is damaged or cut off; export the soft targets again"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write ``tensors`` to ``path`` as safetensors, atomically; equal tensors give equal bytes."""
    write_bytes(path, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file as read-only views of its mapped bytes.

    The safetensors library copies what it reads into memory; a store is larger
    than memory, so its simple layout (length, JSON header, bytes) is read here.

    Raises:
        StoreError: the file is missing, cut off, or no safetensors file.
    """
    try:
        raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        size = int(raw[:8].view("<u8")[0])
        header = json.loads(bytes(raw[8 : 8 + size]))
        header.pop("__metadata__", None)
        return {name: _view(raw[8 + size :], entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise StoreError(
            one_line(f"{path.name} must be a whole safetensors file: {error} ({path}): {_AGAIN}")
        ) from None


def _view(body: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    start, stop = entry["data_offsets"]
    part = body[start:stop]
    if len(part) != stop - start:
        raise ValueError(f"holds {len(body)} bytes of tensors, needs {stop}")
    return part.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def checked_shard(path: Path, header: StoreHeader, entry: ShardEntry, *, verify: bool) -> Mapping[str, NDArray[Any]]:
    """Return a shard's tensors, mapped, once its size, digest, types and shapes are what the header says.

    Args:
        path: the shard.
        header: the store's header.
        entry: the shard's entry in it.
        verify: compare the SHA-256 too, which reads the whole file.

    Raises:
        StoreError: anything differs; the text names the shard.
    """
    size = path.stat().st_size if path.is_file() else -1
    if size != entry.bytes:
        found = "no file" if size < 0 else f"{size}"
        raise StoreError(f"{path.name} must have {entry.bytes} bytes, found {found} ({path}): {_AGAIN}")
    if verify:
        _same_digest(path, entry.sha256)
    tensors = map_tensors(path)
    found_shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if found_shapes != dict(header.shapes(entry.positions)):
        raise StoreError(f"{path.name} must hold the tensors that its header promises, found others ({path}): {_AGAIN}")
    return tensors


def read_index(path: Path, header: StoreHeader, *, verify: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (offsets int64 [n_users + 1], first int64 [n_users]): where each user's positions stand, and start.

    Raises:
        StoreError: the index is damaged or does not belong to the shards.
    """
    if verify:
        _same_digest(path / INDEX, header.index_sha256)
    tensors = map_tensors(path / INDEX)
    offsets, first = tensors.get("offsets", np.empty(0)), tensors.get("first", np.empty(0))
    whole = offsets.shape == (header.n_users + 1,) and first.shape == (header.n_users,)
    held = sum(entry.positions for entry in header.shards)
    if not whole or int(offsets[-1]) != header.positions or held != header.positions:
        raise StoreError(f"{INDEX} must name the {header.positions} positions of the shards ({path / INDEX}): {_AGAIN}")
    return np.array(offsets, dtype=np.int64), np.array(first, dtype=np.int64)


def _same_digest(path: Path, expected: str) -> None:
    found = sha256_file(path) if path.is_file() else "no file"
    if found != expected:
        raise StoreError(f"{path.name} must have SHA-256 {expected[:12]}, found {found[:12]} ({path}): {_AGAIN}")
