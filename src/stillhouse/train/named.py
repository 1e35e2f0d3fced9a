"""A reporter for one part of a work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from stillhouse.reporting import Progress, Reporter

__all__ = ["Named"]


class Named:
    """A reporter that hears of one part of a work, such as one model of several, and says which."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        """Tell ``reporter``, and call the part ``name``."""
        self._reporter, self._name = reporter, name

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record ``values`` under the part's name."""
        self._reporter.metrics({f"{self._name}/{key}": value for key, value in values.items()}, step)

    def note(self, text: str) -> None:
        """Say one line about the part."""
        self._reporter.note(f"{self._name}: {text}")

    def progress(self, description: str, total: int) -> AbstractContextManager[Progress]:
        """Open a bar for the part."""
        return self._reporter.progress(f"{description} {self._name}", total)
