"""The soft-target store, read: what a teacher said at each training position.

Files are memory-mapped. A store whose rows fit a budget of memory is decoded once, as
far as whole numbers go; a batch is then one gather a tensor. A larger one is decoded a
batch at a time. Both give the same bits, and neither loops over rows. The teacher's
states are not coded and stay mapped: they are read for the batches that ask for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.files import sha256_file
from stillhouse.distill.coding_positions import OpenRows, decode, open_bytes, row_shapes
from stillhouse.distill.draws import tail_draws
from stillhouse.distill.store_files import Index, checked_shard, read_index
from stillhouse.distill.store_format import HEADER, HIDDEN, LayerEntry, StoreHeader, read_header
from stillhouse.errors import StoreError

__all__ = ["CACHE_BYTES", "LayeredTargets", "SoftTargets", "TargetBatch"]

#: Memory that a decoded store may take: 512 MiB, about two million positions of 50 items and 32 draws.
CACHE_BYTES = 1 << 29
#: Rows decoded at once.
_AT_ONCE = 2048
#: What stands in a `TargetBatch` where there is no unseen item.
_NOTHING_SAID = {
    "items": 0,
    "scores": -np.inf,
    "peak": 0.0,
    "tail_lse": -np.inf,
    "tail_items": 0,
    "tail_scores": -np.inf,
    "tail_logq": 0.0,
}

Int = NDArray[np.int64]
Float = NDArray[np.float32]
Shard = tuple[Path, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class TargetBatch:
    """What the teacher said at N positions, made ready for one temperature.

    Scores are raw (not divided by the temperature) and relative to the
    position's best: ``peak + scores`` is what the teacher gave. No softmax
    notices the difference.
    """

    temperature: float
    items: Int
    """int64 [N, K]: the highest-scored unseen items, best first; 0 pads where there are fewer than K."""
    scores: Float
    """float32 [N, K]: their scores, at most 0; -inf pads."""
    peak: Float
    """float32 [N]: the best unseen item's score."""
    tail_lse: Float
    """float32 [N]: log of the sum of exp(score / temperature) over the unseen items beyond the top K; -inf for none."""
    tail_items: Int
    """int64 [N, S]: items drawn from that tail; 0 where there is no tail."""
    tail_scores: Float
    """float32 [N, S]: their scores, as ``scores``; -inf where there is no tail."""
    tail_logq: Float
    """float32 [N, S]: log-probability of drawing each: the mean over S of f(item) / exp(logq) estimates, without
    bias, the sum of f over the tail. +inf where a draw counts nothing, because it fell outside the tail (it then
    repeats another of its row); 0 where there is no tail."""
    hidden: Float | None = None
    """float32 [N, d]: the teacher's states, where the store holds them and they were asked for."""

    @property
    def lse(self) -> Float:
        """float32 [N]: log of the sum of exp(score / temperature) over *all* unseen items, relative to ``peak``."""
        with np.errstate(divide="ignore"):
            head = np.log(np.exp(self.scores / np.float32(self.temperature)).sum(axis=1, dtype=np.float32))
        total: Float = np.logaddexp(head, self.tail_lse)
        return total

    def silent_at(self, rows: NDArray[np.bool_]) -> TargetBatch:
        """Return the batch as it is but for ``rows``, bool [N], where the teacher says nothing: padding alone."""
        if not rows.any():
            return self
        found: dict[str, Any] = {}
        for name, nothing in _NOTHING_SAID.items():
            array = getattr(self, name)
            found[name] = np.where(rows.reshape(-1, *[1] * (array.ndim - 1)), array.dtype.type(nothing), array)
        return replace(self, **found)


class SoftTargets:
    """A store that has been checked: it answers which positions it holds and what stands there."""

    def __init__(self, header: StoreHeader, index: Index, shards: list[Shard], cache_bytes: int = CACHE_BYTES) -> None:
        """Read the checked ``shards``, each a path and its mapped tensors."""
        self.header = header
        self._index = index
        self._shards = shards
        self._starts = np.cumsum([0, *(entry.positions for entry in header.shards)], dtype=np.int64)
        self._logq = index.strata.logq
        self._coded = tuple(row_shapes(header.code, 0))
        self._cached: OpenRows | None = None
        self._fits = open_bytes(header.code) * header.positions <= cache_bytes

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        vocabulary: str,
        repeat_items: bool,
        teacher: str | None = None,
        verify: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> SoftTargets:
        """Open the store in the directory ``path``.

        Args:
            path: the store.
            vocabulary: digest of the vocabulary that the caller's item indices belong to.
            repeat_items: whether the caller ranks items that a user has already taken.
            teacher: SHA-256 of the teacher's weights, where the caller expects a certain one.
            verify: compare every file with its SHA-256; otherwise sizes and shapes alone.
            cache_bytes: decode the store once, on first use, if that takes no more memory; 0: never.

        Raises:
            StoreError: the store is damaged, cut off, of another version, or of
                another teacher or vocabulary, or it was cut under another ``repeat_items``.
        """
        header = read_header(path)
        for entry in header.layers:
            _same_header(path / entry.folder, entry)
        _expect("vocabulary", header.vocabulary, vocabulary, path)
        _expect("repeat_items", header.repeat_items, repeat_items, path)
        if teacher is not None:
            _expect("teacher", header.teacher, teacher, path)
        stores = [(path, header), *((folder, read_header(folder)) for folder in _folders(path, header))]
        needed = sum(open_bytes(one.code) * one.positions for _, one in stores)
        budget = cache_bytes if needed <= cache_bytes else 0
        layers = [_opened(folder, one, budget, verify=verify) for folder, one in stores]
        return layers[0] if len(layers) == 1 else LayeredTargets(layers)

    def __len__(self) -> int:
        """Return the number of positions."""
        return int(self._starts[-1])

    def holds(self, users: Int) -> NDArray[np.bool_]:
        """Say of each user index whether the store has positions of that user, bool [N]."""
        known = (users >= 0) & (users < self.header.n_users)
        held = np.append(self._index.held, False)
        return held[np.where(known, users, -1)]

    def position_ids(self, users: Int, steps: Int) -> Int:
        """Return the row of each position (user, step) in the store, -1 where it holds none.

        Args:
            users: int64 [N], user index; one that the store does not know has no positions.
            steps: int64 [N], step t, counted from the user's first event.
        """
        known = (users >= 0) & (users < self.header.n_users)
        safe = np.where(known, users, 0)
        if not self.header.n_users:
            return np.full(users.shape, -1, dtype=np.int64)
        start, behind = self._index.offsets[safe], steps - self._index.first[safe]
        inside = known & (behind >= 0) & (behind < self._index.offsets[safe + 1] - start)
        return np.where(inside, start + behind, -1)

    def batch(self, ids: Int, temperature: float, *, hidden: bool = False, draws: bool = True) -> TargetBatch:
        """Return what stands at the rows ``ids``.

        Args:
            ids: int64 [N], rows as `position_ids` gives them, none of them negative.
            temperature: one of the store's.
            hidden: read the teacher's states too, where the store holds them.
            draws: read what was drawn from the tail; otherwise S is 0.

        Raises:
            StoreError: the store was not written for ``temperature``.
            IndexError: a row is negative or beyond the store.
        """
        column = self.header.temperature_column(temperature)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"rows must be within 0..{len(self) - 1}, got {ids.min()}..{ids.max()}")
        rows = self._rows(ids, draws=draws)
        return TargetBatch(
            temperature=temperature,
            items=rows.items.astype(np.int64),
            scores=rows.scores(),
            peak=rows.peak.astype(np.float32),
            tail_lse=rows.tail_lse[:, column].astype(np.float32),
            tail_items=rows.tail_items.astype(np.int64),
            tail_scores=rows.tail_scores(self.header.code),
            tail_logq=rows.tail_logq(self._logq),
            hidden=self._states(ids) if hidden and self.header.hidden_width else None,
        )

    def _states(self, ids: Int) -> Float:
        states: Float = self._gather(ids, [HIDDEN])[HIDDEN].astype(np.float32)
        return states

    def _rows(self, ids: Int, *, draws: bool) -> OpenRows:
        if not self._fits:
            found = self._opened(ids)
            return found if draws else found.without_draws()
        if self._cached is None:
            ranges = np.arange(0, len(self) + _AT_ONCE, _AT_ONCE).clip(max=len(self))
            parts = (self._opened(np.arange(start, stop)) for start, stop in pairwise(ranges.tolist()))
            self._cached = OpenRows.joined(parts, len(self), self.header.code)
        return (self._cached if draws else self._cached.without_draws()).take(ids)

    def _opened(self, ids: Int) -> OpenRows:
        """Decode the rows ``ids``.

        Raises:
            StoreError: they are no rows of such a store; the text names the shard.
        """
        drawn = tail_draws(self.header.seed, *self._index.where(ids), self._index.strata)
        try:
            return decode(self._gather(ids, self._coded), drawn, self.header.code)
        except ValueError as error:
            owner = self._owner(ids)
            for shard in np.unique(owner).tolist():
                self._require(shard, ids[owner == shard], drawn[owner == shard])
            raise StoreError(f"the rows of soft targets must be whole, found {error}: export them again") from None

    def _require(self, shard: int, ids: Int, drawn: NDArray[Any]) -> None:
        path, tensors = self._shards[shard]
        local = ids - self._starts[shard]
        try:
            decode({name: tensors[name][local] for name in self._coded}, drawn, self.header.code)
        except ValueError as error:
            raise StoreError(
                f"{path.name} must hold rows as they were written: {error} ({path}): it is damaged; "
                "export the soft targets again (shards that are whole are kept)"
            ) from None

    def _owner(self, ids: Int) -> Int:
        """The shard that each of the rows stands in."""
        owner: Int = np.searchsorted(self._starts, ids, side="right") - 1
        return owner

    def _gather(self, ids: Int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """The rows ``ids`` of the shards' tensors of these ``names``."""
        owner = self._owner(ids)
        touched = np.unique(owner).tolist()
        if len(touched) == 1:
            local, tensors = ids - self._starts[touched[0]], self._shards[touched[0]][1]
            return {name: np.take(tensors[name], local, axis=0) for name in names}
        shapes = self.header.shapes(len(ids))
        found = {name: np.empty(shapes[name][1], shapes[name][0]) for name in names}
        for shard in touched:
            rows = np.flatnonzero(owner == shard)
            local = ids[rows] - self._starts[shard]
            for name, array in found.items():
                array[rows] = self._shards[shard][1][name][local]
        return found


class LayeredTargets(SoftTargets):
    """Tonight's store and those of earlier nights beneath it: the latest that knows a user answers for him."""

    def __init__(self, layers: Sequence[SoftTargets]) -> None:
        """Read ``layers``, the latest first."""
        self.header = layers[0].header
        self._layers = tuple(layers)
        self._bounds = np.cumsum([0, *(len(layer) for layer in layers)], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of positions, those included that a later layer answers for."""
        return int(self._bounds[-1])

    def holds(self, users: Int) -> NDArray[np.bool_]:
        """Say of each user index whether any layer has positions of that user, bool [N]."""
        held: NDArray[np.bool_] = np.any([layer.holds(users) for layer in self._layers], axis=0)
        return held

    def position_ids(self, users: Int, steps: Int) -> Int:
        """Return the row of each position (user, step), -1 where there is none; rows count through all layers."""
        found, unknown = np.full(users.shape, -1, dtype=np.int64), np.ones(users.shape, dtype=bool)
        for layer, start in zip(self._layers, self._bounds, strict=False):
            ids = layer.position_ids(users, steps)
            found = np.where(unknown & (ids >= 0), start + ids, found)
            unknown &= ~layer.holds(users)
        return found

    def batch(self, ids: Int, temperature: float, *, hidden: bool = False, draws: bool = True) -> TargetBatch:
        """Return what stands at the rows ``ids``; takes and raises what the batch of one store does."""
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"rows must be within 0..{len(self) - 1}, got {ids.min()}..{ids.max()}")
        owner = np.searchsorted(self._bounds, ids, side="right") - 1
        touched = np.unique(owner).tolist() or [0]
        places = [np.flatnonzero(owner == number) for number in touched]
        parts = [
            self._layers[number].batch(ids[rows] - self._bounds[number], temperature, hidden=hidden, draws=draws)
            for number, rows in zip(touched, places, strict=True)
        ]
        return parts[0] if len(parts) == 1 else _merged(parts, places)


def _merged(parts: Sequence[TargetBatch], places: Sequence[Int]) -> TargetBatch:
    """Put the rows of each part at its places."""
    rows = sum(len(place) for place in places)
    whole: dict[str, Any] = {}
    for name, array in vars(parts[0]).items():
        if isinstance(array, np.ndarray):
            whole[name] = np.empty((rows, *array.shape[1:]), array.dtype)
            for part, place in zip(parts, places, strict=True):
                whole[name][place] = getattr(part, name)
    return replace(parts[0], **whole)


def _folders(path: Path, header: StoreHeader) -> list[Path]:
    return [path / entry.folder for entry in header.layers]


def _opened(path: Path, header: StoreHeader, cache_bytes: int, *, verify: bool) -> SoftTargets:
    """Return the store in ``path`` without its layers, checked."""
    files = [path / entry.file for entry in header.shards]
    shards = [
        (file, checked_shard(file, header, entry, verify=verify))
        for file, entry in zip(files, header.shards, strict=True)
    ]
    return SoftTargets(header, read_index(path, header, verify=verify), shards, cache_bytes)


def _same_header(path: Path, entry: LayerEntry) -> None:
    """Refuse a layer that is not the one that the store's header names."""
    file = path / HEADER
    found = sha256_file(file) if file.is_file() else "no file"
    if found != entry.sha256:
        raise StoreError(
            f"{entry.folder}/{HEADER} must have SHA-256 {entry.sha256[:12]}, found {found[:12]} ({file}): "
            "it is damaged or cut off; export the soft targets again"
        )


def _expect(what: str, found: object, expected: object, path: Path) -> None:
    if found != expected:
        raise StoreError(
            f"the soft targets must be of {what} {_short(expected)}, found {_short(found)} ({path}): "
            "export them again for tonight's teacher, data and params"
        )


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value).lower()
