"""Settings of the stages ``evaluate`` and ``evaluate_champion``."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from stillhouse.params.base import StageParams

__all__ = ["EvaluateParams"]


class EvaluateParams(StageParams):
    """What is measured of a package, and how."""

    section: ClassVar[str] = "evaluate"
    shared: ClassVar[tuple[str, ...]] = ("repeat_items",)

    ks: tuple[Annotated[int, pydantic.Field(ge=1)], ...] = pydantic.Field(min_length=1)
    """Cut-offs; 10 is among them."""
    batch_size: int = pydantic.Field(ge=1)
    """Histories scored at once."""
    threads: int = pydantic.Field(ge=1)
    """Threads of ranking, and of ONNX Runtime there and for batch throughput."""
    latency_threads: int = pydantic.Field(ge=1)
    """ONNX Runtime threads for single-user latency."""
    latency_requests: int = pydantic.Field(ge=10)
    """Single-user requests that latency is taken over."""
    short_history: int = pydantic.Field(ge=1)
    """Histories of at most this many events are the slice ``short``, all others ``long``."""
    head_share: float = pydantic.Field(gt=0.0, lt=1.0)
    """Most popular items that together hold this share of training rows are the slice ``head``."""
    repeat_items: bool

    @pydantic.model_validator(mode="after")
    def _ten(self) -> EvaluateParams:
        if 10 not in self.ks:
            found = ", ".join(map(str, self.ks))
            raise ValueError(f"ks must hold 10, which the gate and early stopping read, found {found}")
        return self
