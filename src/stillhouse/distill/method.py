"""What a way of learning from a teacher looks like: one small protocol, a file each.

A method sees what teacher and student say of the same positions (`Said`) and returns
a loss a position; `stillhouse.distill.mixed` mixes several with the hard loss. The
positions come in parts of any size, so a method works out once a batch, in `prepare`,
whatever must not depend on the parts: random choices, and what the teacher alone decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Method", "Said", "StateMethod", "WeightedMethod"]


@dataclass(frozen=True)
class Said:
    """What teacher and student say of the same n positions: all that a method sees."""

    batch: PositionBatch
    """Of the n positions."""
    teacher: TeacherRows
    """Of the n positions."""
    own: Mapping[str, Tensor]
    """What the method's `Method.prepare` gave, of the n positions."""
    target: Tensor
    """float [n]: the student's score of what came next."""
    head: Tensor
    """float [n, K]: its scores of ``teacher.items``; -inf pads."""
    drawn: Tensor
    """float [n, S]: its scores of ``teacher.tail_items``; -inf where there is no tail; S is 0 if nobody wants draws."""
    hidden: Tensor
    """float [n, width]: the student's states."""
    log_candidates: Tensor
    """float [n]: the student's log-sum-exp at temperature 1 over what the hard loss's softmax runs over."""
    log_unseen: Tensor
    """float [n]: over the unseen items, at the teacher's temperature; empty if nobody wants it."""
    log_tail: Tensor
    """float [n]: over the unseen items outside ``teacher.items``, at that temperature; -inf for none; empty if nobody
    wants it."""
    top_items: Tensor | None = None
    """int64 [n, top]: the student's own best unseen items, best first; 0 pads."""
    top_scores: Tensor | None = None
    """float [n, top]: their scores; -inf pads."""

    @property
    def temperature(self) -> float:
        """Of both sides, > 0."""
        return self.teacher.temperature


class Method(ABC):
    """One way of learning from what a teacher said, position by position."""

    name: ClassVar[str]
    """What its part of the loss is called in the metrics, such as ``soft_loss``."""
    weights: nn.Module | None = None
    """What the method itself learns."""
    top: int = 0
    """How many of the student's own best unseen items it wants to see."""
    reads_states: ClassVar[bool] = False
    """Whether it looks at the teacher's states, where the store holds them; they are read for such a method alone."""
    wants_draws: bool = True
    """Whether it looks at what was drawn from the tail: `Said.drawn` and the like of `TeacherRows`. What no method
    looks at is not worked out."""
    wants_unseen: bool = True
    """Whether it looks at `Said.log_unseen`."""
    wants_tail: bool = True
    """Whether it looks at `Said.log_tail`."""

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return what it needs beside `Said`, worked out once a batch: name → tensor [N, ...], cut with the positions.

        Torch's generator is the only source of chance: the loop seeds it anew at every step.
        """
        return {}

    @abstractmethod
    def loss(self, said: Said) -> Tensor:
        """Return the loss of each position, float [n], finite even where the teacher's row is padding alone."""

    def scale(self, temperature: float) -> float:
        """Return what the loss counts beside the others: 1, or what undoes the temperature in its gradient."""
        return 1.0


class StateMethod(ABC):
    """One way of learning how a teacher's positions lie to each other: it sees a batch's states at once."""

    name: ClassVar[str]
    """As `Method.name`."""
    reads_states: ClassVar[bool] = False
    """As `Method.reads_states`."""

    @abstractmethod
    def loss(self, states: Tensor, teacher: TeacherRows, held: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            states: float [N, width], the student's, with a gradient.
            teacher: of the same N positions.
            held: bool [N], the positions that the store holds.
        """


@dataclass(frozen=True)
class WeightedMethod:
    """A method and its weight among what the teacher says."""

    method: Method | StateMethod
    weight: float
