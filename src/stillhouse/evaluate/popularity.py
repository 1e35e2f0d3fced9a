"""The baseline that every model has to beat: the same most popular items for everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PopularityScorer", "popularity_scores"]


def popularity_scores(popularity: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return a score an item that orders items by how often training rows hold them.

    Args:
        popularity: integer [n_items + 1], counts among training rows; index 0 is padding.

    Returns:
        float32 [n_items + 1]: the share of the training rows; column 0 is -inf.
    """
    counts = popularity.astype(np.float64)
    scores: NDArray[np.float32] = (counts / max(float(counts[1:].sum()), 1.0)).astype(np.float32)
    scores[0] = -np.inf
    return scores


class PopularityScorer:
    """A scorer that ignores the history."""

    def __init__(self, popularity: NDArray[np.integer]) -> None:
        self._scores = popularity_scores(popularity)

    def __call__(self, histories: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [n, n_items + 1], every row alike."""
        return np.broadcast_to(self._scores, (len(histories), len(self._scores)))
