"""The same most popular items for everyone: the floor of every comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.models.fitted import Fitted, TrainingEvents, counts
from stillhouse.params.model import PopularitySpec

__all__ = ["Popularity"]


class Popularity(Fitted):
    """Scores an item by ``log(1 + times taken in training rows)``, whatever the history.

    The softmax of these is each item's share of all training events, smoothed by one.
    """

    taken: Tensor

    def __init__(self, spec: PopularitySpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.length, spec.folds)
        self.register_buffer("taken", torch.zeros(spec.folds + 1, n_items + 1))

    @property
    def table_size(self) -> int:
        """Counts of one table, that of padding included."""
        return self.taken[0].numel()

    def fit(self, sequences: Sequences) -> None:
        """Count the training rows of ``sequences``."""
        self.taken.copy_(counts(TrainingEvents.of(sequences, self.folds), self.n_items, self.folds))

    def raw_scores(self, histories: Tensor, tables: Tensor) -> Tensor:
        """Return the logarithms of the counts, float32 [B, n_items + 1]."""
        return torch.log1p(self.taken)[tables]
