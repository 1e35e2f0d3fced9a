"""Models in closed form: nothing is trained by steps, and each position is scored by what has not seen its user."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.errors import TrainingError
from stillhouse.models.folds import fold_of
from stillhouse.models.protocol import Recommender

__all__ = ["Fitted", "Neighbours", "TrainingEvents", "counts"]

#: Products of an event's weight and a neighbour's that are held at once while histories are scored.
_PRODUCTS = 1 << 22


@dataclass(frozen=True)
class TrainingEvents:
    """All users' training events, one user after another, oldest first."""

    items: Tensor
    """int64 [E]: item index of each event."""
    ends: Tensor
    """int64 [E]: where the events of its user end."""
    users: Tensor
    """int64 [E]: user index of each event."""
    folds: Tensor
    """int64 [E]: fold of its user."""

    @classmethod
    def of(cls, sequences: Sequences, folds: int) -> Self:
        """Return the training events of ``sequences``, whose users fall into ``folds`` parts.

        Raises:
            TrainingError: there is no training event.
        """
        lengths = np.asarray(sequences.train_length, np.int64)
        users = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        if len(users) == 0:
            raise TrainingError("a model needs training events to be fitted on, found none: give more interactions")
        ends = np.cumsum(lengths)
        places = np.arange(len(users), dtype=np.int64) + (np.asarray(sequences.offsets)[:-1] - ends + lengths)[users]
        owners = torch.from_numpy(users)
        return cls(
            items=torch.from_numpy(np.asarray(sequences.items[places], np.int64)),
            ends=torch.from_numpy(ends[users]),
            users=owners,
            folds=fold_of(owners, folds),
        )


def counts(events: TrainingEvents, n_items: int, folds: int) -> Tensor:
    """Return how often each item was taken, float32 [folds + 1, n_items + 1]: by all users, and by all but a fold's."""
    cells = events.folds * (n_items + 1) + events.items
    apart = torch.bincount(cells, minlength=folds * (n_items + 1)).view(folds, n_items + 1)
    total = apart.sum(dim=0, keepdim=True)
    return torch.cat([total, total - apart]).float()


class Fitted(Recommender):
    """A model whose weights follow from the training rows in one go.

    Such weights have seen what they are to predict: an item's neighbours are who stood
    next to it in these very histories. So there is one table of weights fitted on all
    users, for held-out histories, and one a fold fitted without the fold's users, by
    which those users' own training positions are scored (cross-fitting).

    Source: V. Chernozhukov et al., "Double/debiased machine learning for treatment and
    structural parameters", Econometrics Journal 2018, for cross-fitting as such.
    """

    scale: Tensor

    def __init__(self, n_items: int, length: int, folds: int) -> None:
        """Make an empty model that is going to have ``folds`` + 1 tables."""
        super().__init__(n_items, length)
        self.folds = folds
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def fit(self, sequences: Sequences) -> None:
        """Set the weights from the training rows of ``sequences``; equal rows give equal bits.

        Raises:
            TrainingError: there is nothing to fit on, or too much to do it.
        """

    @property
    @abstractmethod
    def table_size(self) -> int:
        """Weights of one table."""

    @abstractmethod
    def raw_scores(self, histories: Tensor, tables: Tensor) -> Tensor:
        """Return scores before `scale`, float32 [B, n_items + 1].

        Args:
            histories: int64 [B, L], right-padded with 0.
            tables: int64 [B], which table scores each row: 0 is all users', 1 + f the one without fold f.
        """

    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next after each whole history.

        Args:
            histories: int64 [B, L], right-padded with 0.
            users: int64 [B]: each row is scored without what that user's fold taught; ``None``: with everything.

        Returns:
            float32 [B, n_items + 1]: logits, because `scale` was chosen so (`stillhouse.train.calibration`).
        """
        tables = torch.zeros(len(histories), dtype=torch.int64, device=histories.device)
        if users is not None:
            tables = 1 + fold_of(users, self.folds)
        return self.raw_scores(histories, tables) * self.scale + self.mask


class Neighbours(Fitted):
    """A fitted model that keeps a few weighted neighbours an item and adds up those of a history's events.

    ``score(i) = sum over events e of decay^age(e) * weight(item(e) -> i)``, where the age of
    the last event is 0. Of each item's weights the largest in magnitude are kept, so that
    a table of I items and m neighbours takes 8 * I * m bytes, whatever its fit took.
    """

    neighbours: Tensor
    weights: Tensor

    def __init__(self, n_items: int, length: int, folds: int, kept: int, decay: float) -> None:
        """Keep ``kept`` weights an item, or all where there are fewer."""
        super().__init__(n_items, length, folds)
        self.decay = decay
        shape = (folds + 1, n_items + 1, min(kept, n_items))
        self.register_buffer("neighbours", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(shape))

    @property
    def table_size(self) -> int:
        """Weights of one table, those of padding included."""
        return self.weights[0].numel()

    def keep(self, table: int, first: int, rows: Tensor, columns: Tensor) -> None:
        """Keep the largest weights of the items ``first``.. in ``table``.

        Args:
            table: which.
            first: item index of the first row.
            rows: float32 [n, C]; what stands in no column is 0.
            columns: int64 [C], rising: the item of each column.
        """
        kept = min(self.weights.shape[2], len(columns))
        found = rows.abs().topk(kept, dim=1).indices
        # In order of their index: a sum then runs in the same order whatever the weights are.
        found = found.sort(dim=1).values
        last = first + len(rows)
        self.neighbours[table, first:last, :kept] = columns[found].int()
        self.weights[table, first:last, :kept] = rows.gather(1, found)

    def raw_scores(self, histories: Tensor, tables: Tensor) -> Tensor:
        """Return the sums of the neighbours' weights, float32 [B, n_items + 1]."""
        size = max(1, _PRODUCTS // (histories.shape[1] * self.weights.shape[2]))
        parts = zip(torch.split(histories, size), torch.split(tables, size), strict=True)
        return torch.cat([self._sums(*part) for part in parts])

    def _sums(self, histories: Tensor, tables: Tensor) -> Tensor:
        ages = (histories != 0).sum(dim=1, keepdim=True) - 1 - torch.arange(histories.shape[1], device=histories.device)
        shares = torch.pow(self.decay, ages.clamp_min(0)) * (ages >= 0)
        at = tables.unsqueeze(1), histories
        columns = self.n_items + 1
        first = columns * torch.arange(len(histories), device=histories.device)
        cells = self.neighbours[at] + first[:, None, None]
        products = self.weights[at] * shares.unsqueeze(2)
        sums = torch.zeros(len(histories) * columns, device=histories.device)
        return sums.scatter_add_(0, cells.flatten(), products.flatten()).view(len(histories), columns)
