"""Which soft targets of earlier nights still stand beneath tonight's, and who need not be scored again.

A teacher that started from last night's weights says nearly what last night's said. So a
user whose training rows are what they were may keep an earlier teacher's targets for a
few nights: the store of that night stays whole beneath tonight's, as a *layer*, and
answers for the users who are in no later store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.vocabulary import item_digest
from stillhouse.distill.store_files import is_whole, read_index
from stillhouse.distill.store_format import LayerEntry, StoreHeader, layer_name, read_header

__all__ = ["Layer", "Standing", "standing"]

Int = NDArray[np.int64]

#: What may differ between tonight's header and that of a layer: whose targets they are, not how they are cut.
_OWN = {
    "teacher",
    "vocabulary",
    "inputs",
    "n_items",
    "n_users",
    "positions",
    "index_sha256",
    "items_sha256",
    "shards",
    "layers",
}


@dataclass(frozen=True)
class Layer:
    """The store of an earlier night, wherever it stands, and what tonight's header says of it."""

    path: Path
    header: StoreHeader
    """Its own, without what stood beneath it."""
    entry: LayerEntry


@dataclass(frozen=True)
class Standing:
    """What of earlier nights still answers."""

    layers: tuple[Layer, ...]
    """The latest first."""
    users: NDArray[np.bool_]
    """For whom, bool [n_users]: they need not be scored tonight."""


def standing(previous: Path, tonight: StoreHeader, item_ids: Sequence[str], digests: Int, *, nights: int) -> Standing:
    """Return what still stands of last night's store and of those beneath it.

    A user keeps what the latest store that knows him says, if his training rows are the
    same, if it was scored at most ``nights`` nights ago, cut as tonight's is, of items that
    tonight's begin with, and whole on disk. A layer that answers for nobody goes.

    Args:
        previous: last night's store.
        tonight: the header of the store that is to be made.
        item_ids: tonight's item ids by index, ``""`` at 0.
        digests: int64 [n_users], `stillhouse.distill.positions.row_digests` of tonight's training rows.
        nights: at least 1.

    Raises:
        StoreError: last night's store is damaged or of another version.
    """
    kept: list[Layer] = []
    taken, unknown = np.zeros((2, len(digests)), dtype=bool)
    unknown[:] = True
    for path, header, age in _stores(previous):
        index = read_index(path, header, verify=True)
        held, rows = np.zeros(len(digests), dtype=bool), np.zeros_like(digests)
        known = slice(min(header.n_users, len(digests)))  # the others are new
        held[known], rows[known] = index.held[known], index.digests[known]
        same = unknown & held & (rows == digests)
        unknown &= ~held
        if same.any() and age <= nights and _fits(header, tonight, item_ids) and _whole(path, header):
            kept.append(Layer(path, header, _entry(header, len(kept), age, int(same.sum()))))
            taken |= same
    return Standing(tuple(kept), taken)


def _stores(previous: Path) -> Iterator[tuple[Path, StoreHeader, int]]:
    """Give last night's store and its layers: where each stands, its own header, and its age tonight."""
    top = read_header(previous)
    yield previous, top.model_copy(update={"layers": ()}), 1
    for layer in top.layers:
        yield previous / layer.folder, read_header(previous / layer.folder), layer.age + 1


def _entry(header: StoreHeader, number: int, age: int, users: int) -> LayerEntry:
    digest = hashlib.sha256(header.json_bytes()).hexdigest()
    return LayerEntry(folder=layer_name(number), sha256=digest, teacher=header.teacher, age=age, users=users)


def _fits(header: StoreHeader, tonight: StoreHeader, item_ids: Sequence[str]) -> bool:
    same = header.model_dump(exclude=_OWN) == tonight.model_dump(exclude=_OWN)
    return same and item_digest(item_ids[1 : header.n_items + 1]) == header.vocabulary


def _whole(path: Path, header: StoreHeader) -> bool:
    return all(is_whole(path / entry.file, entry) for entry in header.shards)
