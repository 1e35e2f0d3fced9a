"""Settings of the stage ``package``."""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic

from stillhouse.params.base import StageParams

__all__ = ["PackageParams"]


class PackageParams(StageParams):
    """What a package is kept in, and what it must match."""

    section: ClassVar[str] = "package"
    shared: ClassVar[tuple[str, ...]] = ("repeat_items",)

    weights: Literal["as_trained", "float32", "int8"] = "as_trained"
    """What matrices are kept in. ``as_trained``: what the student's ``model.weights`` says; ``int8`` rounds any
    student, trained for it or not; ``float32`` keeps what the student computes with."""
    parity: float = pydantic.Field(gt=0.0)
    """Largest absolute difference of any score between package and checkpoint, its matrices rounded alike."""
    parity_histories: int = pydantic.Field(ge=1)
    """Real histories that parity is checked on."""
    repeat_items: bool
