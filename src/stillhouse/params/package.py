"""Settings of the stage ``package``."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from stillhouse.params.base import StageParams

__all__ = ["PackageParams"]


class PackageParams(StageParams):
    """What a package must match."""

    section: ClassVar[str] = "package"
    shared: ClassVar[tuple[str, ...]] = ("repeat_items",)

    parity: float = pydantic.Field(gt=0.0)
    """Largest absolute difference of any score between package and checkpoint."""
    parity_histories: int = pydantic.Field(ge=1)
    """Real histories that parity is checked on."""
    repeat_items: bool
