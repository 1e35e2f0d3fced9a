"""What people took after an item, and how soon."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.models.fitted import Neighbours, TrainingEvents, counts
from stillhouse.params.model import ItemKnnSpec

__all__ = ["ItemKnn"]

#: Counts of pairs that are held at once; items are fitted in blocks of rows that fit into it.
_CELLS = 1 << 26
#: Most rows of a block: fewer rows have fewer neighbours in all, and those alone are its columns.
_ROWS = 64
#: A pair whose events lie so far apart that it counts for less is left out.
_LEAST = 1e-3


class ItemKnn(Neighbours):
    """Item-based nearest neighbours over sequences.

    ``weight(j -> i) = c(j, i) / (sqrt(n(j) * n(i)) + shrink)``, the shrunk cosine, where
    n counts an item's events and c the pairs in which a user took i after j, a pair with
    d events between them as ``decay^d``; pairs that count for less than 1/1000 are left out.
    Where people take the same item again (``repeat_items``) it is its own neighbour, too.

    Source: M. Deshpande, G. Karypis, "Item-based top-N recommendation algorithms", ACM
    TOIS 2004, for the cosine; D. Garg et al., "Sequence and Time Aware Neighborhood for
    Session-based Recommendations: STAN", SIGIR 2019, for decay with distance; direction
    as in the sequential rules of M. Ludewig, D. Jannach, "Evaluation of session-based
    recommendation algorithms", UMUAI 2018.
    """

    def __init__(self, spec: ItemKnnSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.length, spec.folds, spec.neighbours, spec.decay)
        self.shrink = spec.shrink

    def fit(self, sequences: Sequences) -> None:
        """Count the pairs of the training rows of ``sequences``, a block of items at a time."""
        events = TrainingEvents.of(sequences, self.folds)
        lengths = counts(events, self.n_items, self.folds).sqrt()
        # Events by item: those of a block of items then lie side by side.
        order = events.items.argsort(stable=True)
        bounds = torch.searchsorted(events.items[order], torch.arange(self.n_items + 2))
        size = max(1, min(_ROWS, _CELLS // (self.folds * (self.n_items + 1))))
        place = torch.zeros(self.n_items + 1, dtype=torch.int64)
        for first in range(1, self.n_items + 1, size):
            last = min(first + size, self.n_items + 1)
            starts = order[bounds[first] : bounds[last]]
            columns = self._met(events, starts)
            place[columns] = torch.arange(len(columns))
            apart = torch.zeros(self.folds, last - first, len(columns))
            for weight, one, other in self._by_distance(events, starts):
                cells = events.folds[one] * (last - first) + events.items[one] - first
                cells = cells * len(columns) + place[events.items[other]]
                apart.view(-1).scatter_add_(0, cells, torch.full((len(cells),), weight))
            for table in range(self.folds + 1):
                self._keep_most_alike(table, first, apart, lengths[table], columns)

    def _met(self, events: TrainingEvents, starts: Tensor) -> Tensor:
        """Return the items that stand behind one of ``starts``, rising, int64 [C]; padding is always among them."""
        met = torch.zeros(self.n_items + 1, dtype=torch.bool)
        met[0] = True
        for _, _, other in self._by_distance(events, starts):  # walked again for the counts: to keep pairs takes room
            met[events.items[other]] = True
        return met.nonzero().squeeze(1)

    def _by_distance(self, events: TrainingEvents, starts: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Yield what a pair of each distance counts for, and the places of both its events."""
        horizon = math.inf if self.decay == 1.0 else 1 + math.log(_LEAST) / math.log(self.decay)
        distance = 1
        while len(starts) and distance <= horizon:
            starts = starts[starts + distance < events.ends[starts]]
            yield self.decay ** (distance - 1), starts, starts + distance
            distance += 1

    def _keep_most_alike(self, table: int, first: int, apart: Tensor, lengths: Tensor, columns: Tensor) -> None:
        """Keep the rows ``first``.. of a table, given how often a pair was seen: [folds, rows, len(columns)]."""
        # Added up anew without the fold, not taken away from the total: what it taught must leave no trace at all.
        together = sum((part for fold, part in enumerate(apart) if fold != table - 1), torch.zeros(()))
        block = torch.arange(first, first + apart.shape[1])
        alike = together / (lengths[block, None] * lengths[columns] + self.shrink).clamp_min(1e-9)
        self.keep(table, first, alike, columns)
