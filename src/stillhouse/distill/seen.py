"""What each position has already seen, kept as runs of its user's events.

The pairs (position, item) of a batch are millions, and each is a cell that the
arithmetic must reach. As runs they are two numbers a position; the pairs are made
for one part of the positions at a time, where they fit the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Histories", "Seen", "SeenBefore"]


class Histories(Protocol):
    """Who took what, as `stillhouse.data.sequences.Sequences` holds it."""

    @property
    def items(self) -> NDArray[np.int32]:
        """int32 [n_events], users one after another."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [n_users + 1], where each user's events start."""


@dataclass(frozen=True)
class Seen:
    """Position n has seen the events ``first[n]`` .. ``first[n] + counts[n] - 1``; no item stands twice in a run."""

    items: Tensor
    """int64 [n_events]: item of each event, at least 1."""
    first: Tensor
    """int64 [N]."""
    counts: Tensor
    """int64 [N], at least 0."""
    counts_on_host: NDArray[np.int64] | None = None
    """The same on the host, where they are known there: a GPU that is asked for their sum is waited for."""

    def part(self, start: int, stop: int) -> Seen:
        """Return what the positions ``start``..``stop`` - 1 have seen."""
        known = None if self.counts_on_host is None else self.counts_on_host[start:stop]
        return replace(self, first=self.first[start:stop], counts=self.counts[start:stop], counts_on_host=known)

    @property
    def most(self) -> int:
        """The longest run, 0 where there is none."""
        return int(self._known.max()) if len(self._known) else 0

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return (rows ascending, items), int64 [P] each.

        >>> seen = Seen(torch.tensor([7, 8, 9, 5]), first=torch.tensor([0, 3, 1]), counts=torch.tensor([2, 1, 0]))
        >>> [part.tolist() for part in seen.pairs()]
        [[0, 0, 1], [7, 8, 5]]
        """
        size = int(self._known.sum())
        rows = torch.repeat_interleave(self.counts, output_size=size)
        before = self.first + self.counts - self.counts.cumsum(0)
        events = before.index_select(0, rows).add_(torch.arange(size, device=rows.device))
        return rows, self.items.index_select(0, events)

    @property
    def _known(self) -> Tensor | NDArray[np.int64]:
        return self.counts if self.counts_on_host is None else self.counts_on_host

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.pairs())


class SeenBefore:
    """Answers what positions have seen; the events are brought to a device once."""

    def __init__(self, histories: Histories) -> None:
        """Read ``histories`` of people who take no item twice."""
        self._items = torch.from_numpy(np.array(histories.items, np.int64))
        self._offsets = torch.from_numpy(np.array(histories.offsets, np.int64))

    def at(self, users: Tensor, steps: Tensor, steps_on_host: NDArray[np.int64] | None = None) -> Seen:
        """Return what the positions (user, step), int64 [N] each, have seen: the events 0..step, on their device.

        Args:
            users: of each position.
            steps: likewise.
            steps_on_host: the same steps, where the host knows them.
        """
        if self._items.device != users.device:
            self._items, self._offsets = self._items.to(users.device), self._offsets.to(users.device)
        known = None if steps_on_host is None else steps_on_host + 1
        return Seen(self._items, self._offsets.index_select(0, users), steps + 1, known)
