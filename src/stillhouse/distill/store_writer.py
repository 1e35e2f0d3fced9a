"""The soft-target store, written: shards first, each finished or absent, then the whole at once."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.files import read_json, sha256_file, write_json
from stillhouse.distill.positions import Windows
from stillhouse.distill.store_files import write_tensors
from stillhouse.distill.store_format import FORMAT, HEADER, INDEX, VERSION, ShardEntry, StoreHeader, shard_name

__all__ = ["StoreWriter", "new_header"]

_UNWRITTEN = "0" * 64


def new_header(
    *,
    teacher: str,
    vocabulary: str,
    n_items: int,
    n_users: int,
    length: int,
    k: int,
    tail_samples: int,
    temperatures: Sequence[float],
    repeat_items: bool,
) -> StoreHeader:
    """Return the header of a store that holds no positions yet.

    Args:
        teacher: SHA-256 of the teacher's weights.
        vocabulary: digest of the vocabulary.
        n_items: items in it, at least 1.
        n_users: users in it.
        length: most positions a user.
        k: items kept a position; no more than there are are kept.
        tail_samples: draws beyond them.
        temperatures: each > 0.
        repeat_items: whether items already taken are candidates.
    """
    return StoreHeader(
        format=FORMAT,
        version=VERSION,
        teacher=teacher,
        vocabulary=vocabulary,
        n_items=n_items,
        n_users=n_users,
        length=length,
        k=min(k, n_items),
        tail_samples=tail_samples,
        temperatures=tuple(temperatures),
        repeat_items=repeat_items,
        positions=0,
        index_sha256=_UNWRITTEN,
        shards=(),
    )


class StoreWriter:
    """Collects shards in a folder that survives a kill, and publishes them as one store.

    A shard is finished once its record stands beside it and names its digest:
    whatever a kill leaves half done is written again, to the same bytes.
    """

    def __init__(self, folder: Path, header: StoreHeader) -> None:
        """Write below ``folder``, which belongs to exactly these inputs, the store that ``header`` describes."""
        self._folder = folder
        self._header = header

    def finished(self, number: int) -> bool:
        """Say whether shard ``number`` stands whole in the folder, and so need not be made."""
        path, record = self._folder / shard_name(number), self._record(number)
        try:
            return path.is_file() and sha256_file(path) == ShardEntry.model_validate(read_json(record)["shard"]).sha256
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def write(self, number: int, tensors: Mapping[str, NDArray[Any]], summary: Mapping[str, float]) -> None:
        """Write shard ``number`` and its record.

        Args:
            number: counted from 0.
            tensors: those of `StoreHeader.shapes`, of any type that fits.
            summary: what the caller wants back from `summaries`.
        """
        path = self._folder / shard_name(number)
        positions = len(tensors["peak"])
        shapes = self._header.shapes(positions)
        write_tensors(
            path, {name: tensors[name].astype(dtype).reshape(shape) for name, (dtype, shape) in shapes.items()}
        )
        entry = ShardEntry(file=path.name, positions=positions, bytes=path.stat().st_size, sha256=sha256_file(path))
        write_json(self._record(number), {"shard": entry.model_dump(), "summary": dict(summary)})

    def summaries(self, shards: int) -> list[Mapping[str, float]]:
        """Return what was said of each of the first ``shards`` shards."""
        return [read_json(self._record(number))["summary"] for number in range(shards)]

    def publish(self, target: Path, shards: int, plan: Windows) -> StoreHeader:
        """Make ``target`` the store of the first ``shards`` shards, whole or not at all.

        Args:
            target: where the store is to stand; what stands there goes.
            shards: all of them finished.
            plan: the positions that they hold, in order.

        Returns:
            The store's header.
        """
        built = self._folder / "store"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        entries = []
        for number in range(shards):
            entries.append(ShardEntry.model_validate(read_json(self._record(number))["shard"]))
            _link(self._folder / entries[-1].file, built / entries[-1].file)
        write_tensors(built / INDEX, _index(plan, self._header.n_users))
        filled = {"shards": tuple(entries), "positions": int(plan.counts.sum())}
        header = self._header.model_copy(update=filled | {"index_sha256": sha256_file(built / INDEX)})
        write_json(built / HEADER, header.model_dump(mode="json"))
        _move(built, target)
        return header

    def _record(self, number: int) -> Path:
        return self._folder / f"{shard_name(number)}.json"


def _index(plan: Windows, n_users: int) -> dict[str, NDArray[np.int64]]:
    counts, first = np.zeros(n_users, dtype=np.int64), np.zeros(n_users, dtype=np.int64)
    counts[plan.users], first[plan.users] = plan.counts, plan.first
    return {"offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), "first": first}


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
