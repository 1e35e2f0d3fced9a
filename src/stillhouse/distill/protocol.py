"""What the training loop and an objective hand each other.

An objective says what it wants to know of a student's scores (`Wanted`) and turns
the answer (`Answer`) into a loss. It never sees the model, and nobody ever holds
the table of all positions against all items: the loop walks it in parts that fit
the processor's cache (`stillhouse.train.softmax`). So one loop trains teacher and
students, and a new loss touches neither loop nor models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillhouse.distill.seen import Seen

__all__ = ["Answer", "Lesson", "LossParts", "Objective", "Places", "PositionBatch", "Wanted"]


class Places(NamedTuple):
    """Where positions stand, as NumPy holds it. (A tuple: Fabric takes no frozen class apart.)"""

    users: NDArray[np.int64]
    """[N]: user index."""
    steps: NDArray[np.int64]
    """[N]: counted from the user's first event."""


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
    progress: float = 0.0
    """Share of the training's planned steps that is done, in [0, 1): what schedules follow."""
    on_host: Places | None = None
    """Users and steps where they were made; ``None``: the tensors have to be asked, and a GPU is waited for."""

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    @property
    def places(self) -> Places:
        """Users and steps, on the host."""
        return Places(self.users.cpu().numpy(), self.steps.cpu().numpy()) if self.on_host is None else self.on_host

    def part(self, start: int, stop: int) -> PositionBatch:
        """Return the positions ``start``..``stop`` - 1."""
        cut = slice(start, stop)
        return replace(
            self,
            targets=self.targets[cut],
            weights=self.weights[cut],
            users=self.users[cut],
            steps=self.steps[cut],
            on_host=None if self.on_host is None else Places(self.on_host.users[cut], self.on_host.steps[cut]),
        )


@dataclass(frozen=True)
class Wanted:
    """What an objective wants to know of the student's scores at N positions."""

    items: Tensor
    """int64 [N, M]: items whose scores it wants; 0 pads and is answered with -inf."""
    head: Tensor | None = None
    """int64 [N, K]: items that are no part of the *tail*; 0 pads, no item stands twice in a row."""
    head_at: int | None = None
    """Column of ``items`` at which the head stands, if it does: it is then not looked up twice."""
    tail: bool = True
    """Whether the sums over the tail are wanted; otherwise a head says only which items an estimate from draws must
    not leave to chance."""
    seen: Seen | tuple[Tensor, Tensor] | None = None
    """What a position has seen, as runs or as (rows ascending, items), int64 [P] each; no pair stands twice or in the
    head."""
    temperatures: tuple[float, ...] = ()
    """Temperatures at which the log-sum-exp over unseen items, and over the tail, is wanted."""
    total: bool = True
    """Whether the log-sum-exp over all items, at temperature 1, is wanted."""
    mean: bool = False
    """Whether the mean score over the items that a position has not seen (``seen`` none: over all) is wanted."""
    top: int = 0
    """How many of the student's own best unseen items are wanted; more than 0 needs a temperature."""

    def part(self, start: int, stop: int) -> Wanted:
        """Return what is wanted of the positions ``start``..``stop`` - 1."""
        seen = self.seen
        if isinstance(seen, Seen):
            seen = seen.part(start, stop)
        elif seen is not None:
            rows, items = seen
            low, high = torch.searchsorted(rows, rows.new_tensor([start, stop])).tolist()
            seen = (rows[low:high] - start, items[low:high])
        head = None if self.head is None else self.head[start:stop]
        return replace(self, items=self.items[start:stop], head=head, seen=seen)


@dataclass(frozen=True)
class Answer:
    """What was `Wanted`, of n positions; every tensor carries a gradient back to the student."""

    scores: Tensor
    """float [n, M]: of the wanted items, unbounded; -inf pads."""
    hidden: Tensor
    """float [n, width]: the student's state."""
    log_total: Tensor
    """float [n]: log-sum-exp over all items at temperature 1 (0 where it was not wanted)."""
    log_unseen: Mapping[float, Tensor]
    """Temperature T → float [n]: log of the sum of exp(score / T) over the items that the position has not seen."""
    log_tail: Mapping[float, Tensor]
    """The same over the unseen items outside the head; -inf where there are none."""
    mean: Tensor
    """float [n]: mean score over the unseen items (0 where it was not wanted, or where there are none)."""
    top_items: Tensor | None = None
    """int64 [n, top]: the student's best unseen items, best first; 0 pads where there are fewer. No gradient."""
    top_scores: Tensor | None = None
    """float [n, top]: their scores; -inf pads."""


@dataclass(frozen=True)
class LossParts:
    """A loss to go down, and the parts of it that are worth logging apart."""

    total: Tensor
    """Scalar with a gradient: what the optimiser minimises."""
    parts: Mapping[str, Tensor]
    """Name → detached scalar, such as ``hard_loss`` and ``soft_loss``; the same names for every batch."""


class Lesson(Protocol):
    """One batch as an objective teaches it."""

    @property
    def wanted(self) -> Wanted:
        """What the objective wants to know of the batch's positions."""

    def loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        """Return what positions ``start``..``stop`` - 1 add to the batch's loss and to its parts.

        The loss of a batch is the sum over parts that cover it, whatever their sizes.
        """

    def beside(self, states: Tensor) -> LossParts | None:
        """Return what relations among the batch's states add to its loss; ``None``: nothing. It is asked before `loss`.

        Args:
            states: float [N, width], the student's at all positions of the batch, with a gradient.
        """


class Objective(Protocol):
    """Turns the scores of a batch into a loss."""

    @property
    def weights(self) -> nn.Module | None:
        """What the objective itself learns, such as a projection; ``None``: nothing."""

    def lesson(self, batch: PositionBatch) -> Lesson:
        """Return what is to be learnt from ``batch``, on the batch's device."""
