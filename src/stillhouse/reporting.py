"""What a stage says while it works, without knowing who listens.

A stage is handed a `Reporter`. The runner's sends metrics to the tracking
server and draws progress on a terminal; tests pass `SilentReporter`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "Reporter", "SilentReporter"]


class Progress(Protocol):
    """A bar that long work moves forward."""

    def advance(self, steps: int = 1) -> None:
        """Move the bar by ``steps`` of its total."""


class Reporter(Protocol):
    """Where a stage sends what is worth seeing before it has finished."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record ``values`` (name → finite number) at ``step`` (an epoch or a batch, from 0)."""

    def note(self, text: str) -> None:
        """Say one line about how the work goes."""

    def progress(self, description: str, total: int) -> AbstractContextManager[Progress]:
        """Open a bar of ``total`` steps; quiet when nobody looks at a terminal."""


class _Still:
    def advance(self, steps: int = 1) -> None:
        """Do nothing."""


class SilentReporter:
    """A reporter that forgets everything: for tests and for library use."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Forget ``values``."""

    def note(self, text: str) -> None:
        """Forget ``text``."""

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Progress]:
        """Give a bar that draws nothing."""
        yield _Still()
