"""What the training loop hands to an objective, and what it gets back.

An objective sees scores and where they stand, never the model that made them:
so one loop trains teacher and students, and a new loss touches neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["LossParts", "Objective", "PositionBatch"]


@dataclass(frozen=True)
class PositionBatch:
    """The N real positions of one batch, flattened in (row, position) order.

    Position (u, t) has seen the events 0..t of user u and is to name event t + 1.
    """

    targets: Tensor
    """int64 [N]: item index of event t + 1, at least 1."""
    weights: Tensor
    """float32 [N]: weight of that event's hard loss, at least 0."""
    users: Tensor
    """int64 [N]: user index u."""
    steps: Tensor
    """int64 [N]: t, counted from the user's first event (not from the start of the window)."""

    def __len__(self) -> int:
        return int(self.targets.shape[0])


@dataclass(frozen=True)
class LossParts:
    """A loss to go down, and the parts of it that are worth logging apart."""

    total: Tensor
    """Scalar with a gradient: what the optimiser minimises."""
    parts: Mapping[str, Tensor]
    """Name → detached scalar, such as ``hard_loss`` and ``soft_loss``; the same names for every batch."""


class Objective(Protocol):
    """Turns the scores of a batch into a loss."""

    def __call__(self, scores: Tensor, batch: PositionBatch) -> LossParts:
        """Return the loss of ``scores`` and its parts.

        Args:
            scores: float [N, n_items + 1], unbounded; column 0 is -inf.
            batch: where each row of ``scores`` stands, on the same device.
        """
