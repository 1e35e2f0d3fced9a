"""A model of another night, ranked on tonight's items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillhouse.evaluate.scoring import Scorer

__all__ = ["ItemMapping", "mapped_scorer"]

Ints = NDArray[np.int64]


class ItemMapping:
    """Between a model's item indices and tonight's.

    >>> earlier = ItemMapping(np.array([0, 3, 1]), n_items=3)  # its items 1 and 2 are tonight's 3 and 1
    >>> earlier.theirs
    array([0, 2, 0, 1])
    >>> earlier.spread(np.array([[-9.0, 5.0, 6.0]]))
    array([[-inf,   6., -inf,   5.]], dtype=float32)
    """

    def __init__(self, tonight: NDArray[np.integer], n_items: int) -> None:
        """Take tonight's index of each of the model's items.

        Args:
            tonight: integer [their n_items + 1]; 0 at index 0, and where tonight lacks an item.
            n_items: items in tonight's vocabulary.
        """
        self._tonight = np.asarray(tonight, dtype=np.int64)
        self._n_items = n_items
        self.theirs: Ints = np.zeros(n_items + 1, dtype=np.int64)
        """The model's index of each of tonight's items, int64 [n_items + 1]; 0 where it lacks one."""
        self.theirs[self._tonight] = np.arange(len(self._tonight))
        self.theirs[0] = 0

    def spread(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the model's scores float [n, their n_items + 1] over tonight's items, float32 [n, n_items + 1].

        What the model cannot score stays at -inf: a miss as a target, and never before another item.
        """
        found = np.full((len(scores), self._n_items + 1), -np.inf, dtype=np.float32)
        found[:, self._tonight[1:]] = scores[:, 1:]
        found[:, 0] = -np.inf
        return found


def mapped_scorer(scorer: Scorer, mapping: ItemMapping) -> Scorer:
    """Return a scorer of tonight's items, from one of the model's own."""
    return lambda histories: mapping.spread(scorer(histories))
