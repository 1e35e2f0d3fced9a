"""The soft-target store, written: shards first, each finished or absent, then the whole at once."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.files import read_json, sha256_file, write_bytes, write_json
from stillhouse.distill.draws import Strata
from stillhouse.distill.layers import Layer
from stillhouse.distill.positions import Windows
from stillhouse.distill.store_files import is_whole, write_index, write_tensors
from stillhouse.distill.store_format import (
    FORMAT,
    HEADER,
    INDEX,
    ITEMS,
    VERSION,
    LayerEntry,
    ShardEntry,
    StoreHeader,
    read_header,
    shard_name,
)
from stillhouse.errors import StoreError

__all__ = ["StoreWriter", "new_header"]

_UNWRITTEN = "0" * 64


def new_header(
    *,
    teacher: str,
    vocabulary: str,
    inputs: str,
    n_items: int,
    n_users: int,
    length: int,
    windows: Literal["last", "all"] = "last",
    k: int,
    score_bits: int,
    tail_samples: int,
    tail_bits: int,
    temperatures: Sequence[float],
    seed: int,
    repeat_items: bool,
    hidden_width: int = 0,
    copies: int = 0,
    substituted: float = 0.0,
    layers: Sequence[LayerEntry] = (),
) -> StoreHeader:
    """Return the header of a store that holds no positions yet.

    Args:
        teacher: SHA-256 of the teacher's weights.
        vocabulary: digest of the vocabulary.
        inputs: digest of the events and settings that the positions are cut from.
        n_items: items in it, at least 1.
        n_users: users in it, copies included.
        length: most positions that the teacher reads at once.
        windows: of a user's training rows the ``last`` so many, or ``all``.
        k: items kept a position; no more than there are are kept.
        score_bits: bits of a kept score, 1..8.
        tail_samples: draws beyond them; no more than there are items are made.
        tail_bits: bits of a draw's score, 2..7.
        temperatures: each > 0.
        seed: of the draws.
        repeat_items: whether items already taken are candidates.
        hidden_width: numbers of the teacher's state at each position; 0: its states are not kept.
        copies: copies of each user's training rows among the users.
        substituted: how likely an event of a copy is another item; 0 without copies.
        layers: the stores of earlier nights that are kept beneath it.
    """
    return StoreHeader(
        format=FORMAT,
        version=VERSION,
        teacher=teacher,
        vocabulary=vocabulary,
        inputs=inputs,
        n_items=n_items,
        n_users=n_users,
        length=length,
        windows=windows,
        k=min(k, n_items),
        score_bits=score_bits,
        tail_samples=min(tail_samples, n_items),
        tail_bits=tail_bits,
        temperatures=tuple(temperatures),
        seed=seed,
        repeat_items=repeat_items,
        copies=copies,
        substituted=substituted,
        hidden_width=hidden_width,
        positions=0,
        index_sha256=_UNWRITTEN,
        shards=(),
        layers=tuple(layers),
    )


class StoreWriter:
    """Collects shards in a folder that survives a kill, and publishes them as one store.

    A shard is finished once its record stands beside it and names its digest:
    whatever a kill leaves half done is written again, to the same bytes.
    """

    def __init__(self, folder: Path, header: StoreHeader, strata: Strata) -> None:
        """Write below ``folder``, which belongs to exactly these inputs, the store that ``header`` describes."""
        self._folder = folder
        self._header = header
        self._strata = strata

    def finished(self, number: int) -> bool:
        """Say whether shard ``number`` stands whole in the folder, and so need not be made."""
        try:
            return is_whole(self._folder / shard_name(number), self._entry(number))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def adopt(self, store: Path) -> None:
        """Take over what is whole of a store that stands at ``store``, if it is the one to be written.

        So a store of which a shard is damaged is made whole by making that shard alone.
        """
        try:
            found = read_header(store)
        except StoreError:
            return
        if _unfilled(found) != self._header:
            return
        for number, entry in enumerate(found.shards):
            source, target = store / entry.file, self._folder / shard_name(number)
            if entry.file == target.name and not self.finished(number) and is_whole(source, entry):
                target.unlink(missing_ok=True)
                _link(source, target)
                write_json(self._record(number), entry.model_dump(mode="json"))

    def write(self, number: int, tensors: Mapping[str, NDArray[Any]], top_k_probability: Sequence[float]) -> None:
        """Write shard ``number`` and its record.

        Args:
            number: counted from 0.
            tensors: those of `StoreHeader.shapes`.
            top_k_probability: the mean over its positions at each temperature.
        """
        path = self._folder / shard_name(number)
        positions = len(tensors["peak"])
        found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if found != dict(self._header.shapes(positions)):
            raise ValueError(f"a shard must hold the tensors that its header promises, got {found}")
        write_tensors(path, tensors)
        entry = ShardEntry(
            file=path.name,
            positions=positions,
            bytes=path.stat().st_size,
            sha256=sha256_file(path),
            top_k_probability=tuple(top_k_probability),
        )
        write_json(self._record(number), entry.model_dump(mode="json"))

    def publish(
        self,
        target: Path,
        shards: int,
        plan: Windows,
        digests: NDArray[np.int64],
        layers: Sequence[Layer] = (),
        items: NDArray[np.float16] | None = None,
    ) -> StoreHeader:
        """Make ``target`` the store of the first ``shards`` shards, whole or not at all.

        Args:
            target: where the store is to stand; what stands there goes.
            shards: all of them finished.
            plan: the positions that they hold, in order.
            digests: int64 [n_users], of every user's training rows.
            layers: those of the header, wherever they stand.
            items: float16 [n_items + 1, width], the teacher's item table where it has one.

        Returns:
            The store's header.
        """
        built = self._folder / "store"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        entries = []
        for number in range(shards):
            entries.append(self._entry(number))
            _link(self._folder / entries[-1].file, built / entries[-1].file)
        for layer in layers:
            _link_layer(layer, built / layer.entry.folder)
        first, held = np.zeros((2, self._header.n_users), dtype=np.int64)
        counts = np.bincount(plan.users, weights=plan.counts, minlength=self._header.n_users).astype(np.int64)
        # Of a user's rows the first is written last, and stays.
        first[plan.users[::-1]], held[plan.users] = plan.first[::-1], digests[plan.users]
        write_index(built / INDEX, counts, first, held, self._strata)
        filled = {
            "shards": tuple(entries),
            "positions": int(plan.counts.sum()),
            "index_sha256": sha256_file(built / INDEX),
        }
        if items is not None:
            write_tensors(built / ITEMS, {"items": items})
            filled["items_sha256"] = sha256_file(built / ITEMS)
        header = self._header.model_copy(update=filled)
        write_bytes(built / HEADER, header.json_bytes())
        _move(built, target)
        return header

    def _entry(self, number: int) -> ShardEntry:
        return ShardEntry.model_validate(read_json(self._record(number)))

    def _record(self, number: int) -> Path:
        return self._folder / f"{shard_name(number)}.json"


def _unfilled(header: StoreHeader) -> StoreHeader:
    """``header`` as it was before anything was written."""
    return header.model_copy(update={"positions": 0, "index_sha256": _UNWRITTEN, "items_sha256": None, "shards": ()})


def _link_layer(layer: Layer, target: Path) -> None:
    """Make ``target`` the store of ``layer``, and of it alone."""
    target.mkdir(parents=True)
    for name in (INDEX, *(entry.file for entry in layer.header.shards)):
        _link(layer.path / name, target / name)
    write_bytes(target / HEADER, layer.header.json_bytes())


def _link(source: Path, target: Path) -> None:
    """Give ``source`` a second name; copy it where the file system has no links. Shards are never written in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _move(built: Path, target: Path) -> None:
    """Rename ``built`` to ``target``, by way of a copy beside it when it lies on another file system."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        built.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(built, partial)
        partial.rename(target)
