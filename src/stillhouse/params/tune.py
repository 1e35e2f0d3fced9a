"""Settings of ``stillhouse tune``: where a search may look, and how long. No stage reads them."""

from __future__ import annotations

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["Range", "Share", "TuneParams"]


class _Between(Frozen):
    @pydantic.model_validator(mode="after")
    def _ordered(self) -> _Between:
        low, high = getattr(self, "low", 0.0), getattr(self, "high", 0.0)
        if low >= high:
            raise ValueError(f"low must be < high, got {low:g} and {high:g}")
        return self


class Share(_Between):
    """A range between 0 and 1, searched evenly."""

    low: float = pydantic.Field(ge=0.0, le=1.0)
    """The least."""
    high: float = pydantic.Field(ge=0.0, le=1.0)
    """The most."""


class Range(_Between):
    """A range above 0, searched on a logarithmic scale."""

    low: float = pydantic.Field(gt=0.0)
    """The least."""
    high: float = pydantic.Field(gt=0.0)
    """The most."""


class TuneParams(Frozen):
    """Where a search for a student's settings looks.

    A range that does not hold what stands today is widened to it. ``null`` in place of a
    range leaves a setting as it is; one that follows a schedule is left as it is anyway.
    """

    trials: int = pydantic.Field(40, ge=1)
    """Finished trials that a search ends with; those that were pruned count."""
    alpha: Share | None = Share(low=0.05, high=0.95)
    """Weight of the hard loss."""
    temperatures: tuple[pydantic.PositiveFloat, ...] | None = None
    """Temperatures to choose from, all of them the store's; null: every one that the store has."""
    learning_rate: Range | None = Range(low=0.001, high=0.05)
    """Of the training."""
    method_weight: Range | None = Range(low=0.1, high=10.0)
    """Weight of each method that the distillation lists. While alpha is searched the first one's stays: the loss is
    ``alpha * hard + (1 - alpha) * (weighted methods)``, so that two of the three would say the same."""
    startup_trials: int = pydantic.Field(8, ge=1)
    """Trials that are drawn at random and run to their end; what they found draws and prunes the others."""
    warmup_epochs: int = pydantic.Field(3, ge=0)
    """Epochs that no trial is pruned before."""

    @pydantic.field_validator("learning_rate")
    @classmethod
    def _that_training_takes(cls, within: Range | None) -> Range | None:
        if within is not None and within.high > 1.0:
            raise ValueError("high must be at most 1, the highest learning rate that training takes")
        return within
