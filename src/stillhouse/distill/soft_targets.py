"""The soft-target store, read: what a teacher said at each training position.

Files are memory-mapped; a batch costs one gather a tensor and shard that it
touches, and never a loop over rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.distill.store_files import checked_shard, read_index
from stillhouse.distill.store_format import StoreHeader, read_header
from stillhouse.errors import StoreError

__all__ = ["SoftTargets", "TargetBatch"]

Int = NDArray[np.int64]
Float = NDArray[np.float32]


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
    """int64 [N, S]: items drawn from that tail with replacement; 0 where there is no tail."""
    tail_scores: Float
    """float32 [N, S]: their scores, as ``scores``."""
    tail_logq: Float
    """float32 [N, S]: log-probability of drawing each; 0 where there is no tail."""

    @property
    def lse(self) -> Float:
        """float32 [N]: log of the sum of exp(score / temperature) over *all* unseen items, relative to ``peak``."""
        with np.errstate(divide="ignore"):
            head = np.log(np.exp(self.scores / np.float32(self.temperature)).sum(axis=1, dtype=np.float32))
        total: Float = np.logaddexp(head, self.tail_lse)
        return total


class SoftTargets:
    """A store that has been checked: it answers which positions it holds and what stands there."""

    def __init__(self, header: StoreHeader, shards: list[Mapping[str, NDArray[Any]]], offsets: Int, first: Int) -> None:
        self.header = header
        self._shards = shards
        self._offsets = offsets
        self._first = first
        self._starts = np.cumsum([0, *(entry.positions for entry in header.shards)], dtype=np.int64)

    @classmethod
    def open(
        cls, path: Path, *, vocabulary: str, repeat_items: bool, teacher: str | None = None, verify: bool = True
    ) -> SoftTargets:
        """Open the store in the directory ``path``.

        Args:
            path: the store.
            vocabulary: digest of the vocabulary that the caller's item indices belong to.
            repeat_items: whether the caller ranks items that a user has already taken.
            teacher: SHA-256 of the teacher's weights, where the caller expects a certain one.
            verify: compare every file with its SHA-256; otherwise sizes and shapes alone.

        Raises:
            StoreError: the store is damaged, cut off, of another version, or of
                another teacher or vocabulary, or it was cut under another ``repeat_items``.
        """
        header = read_header(path)
        _expect("vocabulary", header.vocabulary, vocabulary, path)
        _expect("repeat_items", header.repeat_items, repeat_items, path)
        if teacher is not None:
            _expect("teacher", header.teacher, teacher, path)
        shards = [checked_shard(path / entry.file, header, entry, verify=verify) for entry in header.shards]
        return cls(header, shards, *read_index(path, header, verify=verify))

    def __len__(self) -> int:
        """Return the number of positions."""
        return int(self._starts[-1])

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
        start, behind = self._offsets[safe], steps - self._first[safe]
        inside = known & (behind >= 0) & (behind < self._offsets[safe + 1] - start)
        return np.where(inside, start + behind, -1)

    def batch(self, ids: Int, temperature: float) -> TargetBatch:
        """Return what stands at the rows ``ids``.

        Args:
            ids: int64 [N], rows as `position_ids` gives them, none of them negative.
            temperature: one of the store's.

        Raises:
            StoreError: the store was not written for ``temperature``.
            IndexError: a row is negative or beyond the store.
        """
        column = self.header.temperature_column(temperature)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"rows must be within 0..{len(self) - 1}, got {ids.min()}..{ids.max()}")
        found = self._gather(ids)
        return TargetBatch(
            temperature=temperature,
            items=found["items"].astype(np.int64),
            scores=found["scores"].astype(np.float32),
            peak=found["peak"],
            tail_lse=found["tail_lse"][:, column],
            tail_items=found["tail_items"].astype(np.int64),
            tail_scores=found["tail_scores"].astype(np.float32),
            tail_logq=found["tail_logq"],
        )

    def _gather(self, ids: Int) -> dict[str, NDArray[Any]]:
        owner = np.searchsorted(self._starts, ids, side="right") - 1
        found = {
            name: np.empty((len(ids), *shape[1:]), dtype=dtype)
            for name, (dtype, shape) in self.header.shapes(len(ids)).items()
        }
        for shard in np.unique(owner):
            rows = np.flatnonzero(owner == shard)
            local = ids[rows] - self._starts[shard]
            for name, tensor in self._shards[shard].items():
                found[name][rows] = tensor[local]
        return found


def _expect(what: str, found: object, expected: object, path: Path) -> None:
    if found != expected:
        raise StoreError(
            f"the soft targets must be of {what} {_short(expected)}, found {_short(found)} ({path}): "
            "export them again for tonight's teacher, data and params"
        )


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value).lower()
