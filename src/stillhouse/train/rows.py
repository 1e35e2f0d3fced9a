"""Training events as batches: one row a user, in an order that only (seed, epoch) decides."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.distill.protocol import Places, PositionBatch
from stillhouse.errors import TrainingError
from stillhouse.train.compute import derived_seed

__all__ = ["TrainingRows"]

Ints = npt.NDArray[np.int64]

Windows = Literal["last", "random", "all"]

#: Batches whose rows are sorted by length together: padding goes, the order stays random.
_POOL = 16


class TrainingRows:
    """The training events of every user that has at least two, in rows of up to ``length`` + 1 events.

    Input position t of user u is event t, its target is event t + 1. Of a history that is
    longer than a row, ``windows`` takes the ``last`` events, a ``random`` window (another one
    every epoch), or ``all`` events, in rows that end where the next begins.
    """

    def __init__(self, sequences: Sequences, length: int, windows: Windows = "last") -> None:
        """Plan the rows of ``sequences`` for a model that looks ``length`` events back.

        Raises:
            TrainingError: no user has two training events.
        """
        trained = np.asarray(sequences.train_length, np.int64)
        self.users: Ints = np.flatnonzero(trained >= 2)
        if len(self.users) == 0:
            raise TrainingError(
                f"training needs at least one user with two training events, found none among {sequences.n_users} "
                "users: give more interactions, or lower prepare.min_user_events (params.yaml: prepare)"
            )
        positions = trained[self.users] - 1
        if windows == "all":
            rows = -(-positions // length)
            behind = length * (np.repeat(np.cumsum(rows), rows) - 1 - np.arange(rows.sum()))
            self.users, positions = np.repeat(self.users, rows), np.repeat(positions, rows) - behind
        self.counts: Ints = np.minimum(positions, length)
        self.first: Ints = positions - self.counts
        self._slack: Ints = self.first if windows == "random" else np.zeros_like(self.first)
        self._offsets: Ints = np.asarray(sequences.offsets, np.int64)[self.users]
        # Read into memory once: batches gather from all over the arrays.
        self._items = np.array(sequences.items, np.int64)
        self._weights = np.array(sequences.weights, np.float32)

    def __len__(self) -> int:
        return len(self.users)

    def plan(self, seed: int, epoch: int, batch_size: int) -> list[Ints]:
        """Return the rows of each batch of an epoch; every row stands in exactly one.

        Where windows are random this draws the epoch's, which `batch` then cuts.

        Rows of similar length share a batch. The order depends on the arguments alone,
        so that a resumed run needs no history of random numbers.
        """
        generator = np.random.default_rng(derived_seed(seed, epoch))
        if self._slack.any():
            self.first = generator.integers(0, self._slack, endpoint=True)
        order = generator.permutation(len(self))
        pool = _POOL * batch_size
        batches: list[Ints] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self.counts[rows], kind="stable")]
            batches += [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def batch(self, rows: Ints) -> tuple[Tensor, PositionBatch]:
        """Return the histories of ``rows``, and their real positions in (row, position) order.

        Returns:
            int64 [len(rows), longest] right-padded with 0, and the N positions of them that are not padding.
        """
        counts = self.counts[rows]
        steps = np.arange(counts.max(initial=1), dtype=np.int64)
        real = steps < counts[:, None]
        events = ((self._offsets[rows] + self.first[rows])[:, None] + steps)[real]
        histories = np.zeros(real.shape, np.int64)
        histories[real] = self._items[events]
        places = Places(np.repeat(self.users[rows], counts), (self.first[rows][:, None] + steps)[real])
        positions = PositionBatch(
            targets=torch.from_numpy(self._items[events + 1]),
            weights=torch.from_numpy(self._weights[events + 1]),
            users=torch.from_numpy(places.users),
            steps=torch.from_numpy(places.steps),
            on_host=places,
        )
        return torch.from_numpy(histories), positions
