"""A score matrix with what is seen and one target a row: made once, read by every contender."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["Matrix", "make"]

#: How far a target's score is raised: it makes a hit rate at 10 of the size that real models have.
_LIFT = 2.0


class Matrix:
    """What `make` wrote, in memory."""

    def __init__(self, folder: str) -> None:
        """Read the matrix in ``folder``."""
        self.scores = np.load(Path(folder) / "scores.npy")
        """float32 [users, n_items + 1]; column 0 is padding."""
        self.targets = np.load(Path(folder) / "targets.npy")
        """int64 [users], 1..n_items."""
        seen = np.load(Path(folder) / "seen.npy")
        self.seen = (seen[0], seen[1])
        """Row numbers, ascending, and item indices, int64; no target among them."""


def make(folder: Path, *, users: int, items: int, seen: int, seed: int) -> None:
    """Write a matrix into ``folder``: normal scores, targets that stand higher, ``seen`` items a user on average.

    No item of a row has exactly its target's score: peers break ties as they please.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((users, items + 1), dtype=np.float32)
    targets = generator.integers(1, items + 1, users)
    rows = np.arange(users)
    tied = rows
    while len(tied):
        scores[tied, targets[tied]] = generator.normal(_LIFT, 1.0, len(tied)).astype(np.float32)
        tied = rows[np.count_nonzero(scores == scores[rows, targets][:, None], axis=1) > 1]
    row = np.repeat(rows, generator.geometric(1 / seen, users))
    item = generator.integers(1, items + 1, len(row))
    kept = item != targets[row]
    np.save(folder / "scores.npy", scores)
    np.save(folder / "targets.npy", targets)
    np.save(folder / "seen.npy", np.stack([row[kept], item[kept]]))
