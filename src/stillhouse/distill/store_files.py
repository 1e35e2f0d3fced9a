"""The store's safetensors files: written atomically, mapped into memory, checked before use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from stillhouse.data.files import sha256_file, write_bytes
from stillhouse.distill.draws import Strata
from stillhouse.distill.store_format import INDEX, ShardEntry, StoreHeader
from stillhouse.errors import StoreError, one_line

__all__ = ["Index", "checked_shard", "is_whole", "map_tensors", "read_index", "write_index", "write_tensors"]

Int = NDArray[np.int64]

_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I64": np.int64, "F16": np.float16, "F32": np.float32}
_AGAIN = "it is damaged or cut off; export the soft targets again (shards that are whole are kept)"


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


def is_whole(path: Path, entry: ShardEntry) -> bool:
    """Say whether the file ``path`` holds the bytes that ``entry`` promises."""
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256


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


@dataclass(frozen=True)
class Index:
    """Where each user's positions stand, and what draws are made of."""

    offsets: Int
    """int64 [n_users + 1]: the first position of each user, and the end."""
    first: Int
    """int64 [n_users]: the step of that position."""
    digests: Int
    """int64 [n_users]: `stillhouse.distill.positions.row_digests` of those who have positions here, else 0."""
    strata: Strata
    """Of all items; as many as there are draws."""

    @property
    def held(self) -> NDArray[np.bool_]:
        """Who has positions here, bool [n_users]."""
        return np.diff(self.offsets) > 0

    def where(self, rows: Int) -> tuple[Int, Int]:
        """Return the user and the step of each position ``rows``, int64 [N] each."""
        users = np.searchsorted(self.offsets, rows, side="right") - 1
        return users, self.first[users] + rows - self.offsets[users]


def write_index(path: Path, counts: Int, first: Int, digests: Int, strata: Strata) -> None:
    """Write the index of users with ``counts`` positions from step ``first`` and training rows of ``digests``.

    Each is int64 [n_users].
    """
    tensors = {"counts": _narrow(counts), "first": _narrow(first), "digests": digests}
    write_tensors(path, tensors | {"strata_items": strata.items, "strata_ends": strata.ends.astype(np.uint32)})


def read_index(path: Path, header: StoreHeader, *, verify: bool) -> Index:
    """Return the index of the store in the directory ``path``.

    Raises:
        StoreError: the index is damaged or does not belong to the shards.
    """
    if verify:
        _same_digest(path / INDEX, header.index_sha256)
    tensors = map_tensors(path / INDEX)
    counts, first, digests, items, ends = (
        np.array(tensors.get(name, np.empty(0)), dtype=np.int64)
        for name in ("counts", "first", "digests", "strata_items", "strata_ends")
    )
    held = sum(entry.positions for entry in header.shards)
    users = {len(counts), len(first), len(digests)} == {header.n_users}
    if not users or (int(counts.sum()), held) != (header.positions, header.positions):
        raise StoreError(f"{INDEX} must name the {header.positions} positions of the shards ({path / INDEX}): {_AGAIN}")
    strata = Strata(items.astype(header.code.item), ends)
    whole = np.array_equal(np.sort(items), np.arange(1, header.n_items + 1)) and len(ends) == header.tail_samples
    if not whole or (len(ends) and (strata.sizes.min() < 1 or ends[-1] != len(items))):
        raise StoreError(f"{INDEX} must cut all items into {header.tail_samples} strata ({path / INDEX}): {_AGAIN}")
    return Index(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), first, digests, strata)


def _narrow(numbers: Int) -> NDArray[Any]:
    """The same numbers, each at least 0, in the smallest unsigned type that safetensors and they allow."""
    kind = np.min_scalar_type(int(numbers.max(initial=0)))
    return numbers.astype(kind if kind.itemsize < 8 else np.int64)


def _same_digest(path: Path, expected: str) -> None:
    found = sha256_file(path) if path.is_file() else "no file"
    if found != expected:
        raise StoreError(f"{path.name} must have SHA-256 {expected[:12]}, found {found[:12]} ({path}): {_AGAIN}")
