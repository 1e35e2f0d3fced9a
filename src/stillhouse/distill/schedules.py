"""What alpha and temperature do as training goes on: functions of progress and batch alone, so a run can resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["ByConfidence", "Curve", "NearConfidence", "nearest"]


@dataclass(frozen=True)
class Curve:
    """Goes from ``start`` to ``end`` while progress goes from 0 to ``until``, and stays there."""

    start: float
    end: float
    until: float = 1.0
    """Share of the training's planned steps, in (0, 1]."""
    kind: Literal["linear", "cosine"] = "linear"

    @classmethod
    def constant(cls, value: float) -> Curve:
        """Return a curve that is ``value`` throughout."""
        return cls(value, value)

    @property
    def flat(self) -> bool:
        """Whether it is one value throughout."""
        return self.start == self.end

    def at(self, progress: float) -> float:
        """Return the value at ``progress`` in [0, 1].

        >>> [Curve(1.0, 0.0, until=0.5).at(progress) for progress in (0.0, 0.25, 0.5, 0.9)]
        [1.0, 0.5, 0.0, 0.0]
        >>> round(Curve(1.0, 0.0, kind="cosine").at(0.25), 4)
        0.8536
        """
        done = min(progress / self.until, 1.0)
        if self.kind == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class ByConfidence:
    """A weight of the hard loss that differs by position: ``sure`` where the teacher is sure, ``unsure`` where not."""

    sure: float
    unsure: float

    def at(self, teacher: TeacherRows) -> Tensor:
        """Return the weight at each position, float [N]: in between by `TeacherRows.confidence`."""
        return self.unsure + (self.sure - self.unsure) * teacher.confidence


@dataclass(frozen=True)
class NearConfidence:
    """The temperature at which the teacher's best item has a probability near ``target``, batch by batch."""

    target: float

    def choose(self, found: Sequence[tuple[float, float]]) -> float:
        """Return the temperature of ``found``, pairs (temperature, mean best probability), that comes nearest.

        >>> NearConfidence(0.2).choose([(1.0, 0.5), (2.0, 0.25), (4.0, 0.1)])
        2.0
        """
        return min(found, key=lambda pair: (abs(pair[1] - self.target), pair[0]))[0]


def nearest(value: float, stored: Sequence[float]) -> float:
    """Return the one of ``stored`` that is nearest to ``value``, of two equally near ones the lower.

    >>> nearest(2.9, (1.0, 2.0, 4.0))
    2.0
    """
    return min(stored, key=lambda each: (abs(each - value), each))
