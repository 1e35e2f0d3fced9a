"""A linear model over whole histories, solved in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.errors import TrainingError
from stillhouse.models.fitted import Neighbours, TrainingEvents
from stillhouse.models.folds import fold_of
from stillhouse.params.model import EaseSpec

__all__ = ["Ease"]

#: Most items for which a dense inverse is made: each of the five matrices that are held then takes 1.6 GB.
_MOST_ITEMS = 20_000
#: Cells of users by items that are held at once while pairs are counted.
_CELLS = 1 << 26


class Ease(Neighbours):
    """Weights between items that rebuild every history from itself, an item never from itself.

    With X [users, items] saying who took what and ``P = (X'X + l2 * I)^-1``, the weights
    are ``B = -P / diag(P)`` (each column divided by its diagonal cell) with diag(B) = 0:
    the minimum of ``|X - X B|^2 + l2 * |B|^2`` under that constraint. Of each row of B the
    largest weights are kept; ``decay`` below 1 lets late events of a history count for more.

    Source: H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """

    def __init__(self, spec: EaseSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.length, spec.folds, spec.neighbours, spec.decay)
        self.l2 = spec.l2

    def fit(self, sequences: Sequences) -> None:
        """Solve for the weights of the training rows of ``sequences``, once for all users and once without each fold.

        Raises:
            TrainingError: there are more items than a dense inverse can be made for, or ``l2`` is too small for one.
        """
        if self.n_items > _MOST_ITEMS:
            raise TrainingError(
                f"EASE inverts a matrix of items by items and must have at most {_MOST_ITEMS:,} items, found "
                f"{self.n_items:,}: raise prepare.min_item_events, or take item_knn (params.yaml: train_teacher.model)"
            )
        events = TrainingEvents.of(sequences, self.folds)
        taken = torch.unique(events.users * self.n_items + events.items - 1)
        users, items = taken // self.n_items, taken % self.n_items
        folds = fold_of(users, self.folds)
        whole = _gram(users, items, self.n_items)
        self._solve(0, whole.clone())
        for fold in range(self.folds):
            mine = folds == fold
            # Counts are whole numbers below 2^24, so that the difference is exact.
            self._solve(1 + fold, whole - _gram(users[mine], items[mine], self.n_items))

    def _solve(self, table: int, gram: Tensor) -> None:
        gram.diagonal().add_(self.l2)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if bool(failed):
            raise TrainingError(
                f"l2 of EASE must be so large that its matrix can be inverted in single precision, got {self.l2:g}: "
                "raise it (params.yaml: train_teacher.model)"
            )
        inverse = torch.cholesky_inverse(factor)
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.fill_diagonal_(0.0)
        self.keep(table, 1, weights, torch.arange(1, self.n_items + 1))


def _gram(users: Tensor, items: Tensor, n_items: int) -> Tensor:
    """Return how many users took both items of each pair, float32 [n_items, n_items].

    Args:
        users: int64 [P], who took something; a pair of user and item stands once.
        items: int64 [P], what was taken, from 0.
        n_items: rows and columns of the result.
    """
    order = items.argsort(stable=True)
    items, owners = items[order], torch.unique(users[order], return_inverse=True)[1]
    starts = torch.searchsorted(items, torch.arange(n_items + 1))
    n_users = int(owners.max()) + 1 if len(owners) else 1
    gram = torch.zeros(n_items, n_items)
    size = max(1, _CELLS // n_users)
    for first in range(0, n_items, size):
        last = min(first + size, n_items)
        some = slice(int(starts[first]), int(starts[last]))
        taken = torch.zeros(n_users, last - first)
        taken[owners[some], items[some] - first] = 1.0
        # Row j adds up what the users of item j took: a sparse matrix times a dense one.
        gram[:, first:last] = torch.nn.functional.embedding_bag(owners, taken, starts[:-1], mode="sum")
    return gram
