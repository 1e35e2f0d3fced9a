"""The reporter of a stage that runs for people: progress on a terminal, metrics kept for the tracking run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stillhouse.reporting import Progress

__all__ = ["ConsoleReporter"]


class _Bar:
    def __init__(self, advance: object) -> None:
        self._advance = advance

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if callable(self._advance):
            self._advance(steps)


class ConsoleReporter:
    """Draws progress where someone looks at a terminal and keeps metrics until they are logged at once."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.series: list[tuple[int, dict[str, float]]] = []
        """(step, values) in the order reported."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep ``values`` for the tracking run."""
        self.series.append((step, {name: float(value) for name, value in values.items()}))

    def note(self, text: str) -> None:
        """Say one line on standard error."""
        print(f"{self._stage}: {text}", file=sys.stderr)  # noqa: T201

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Progress]:
        """Open a bar; nothing is drawn unless standard error is a terminal."""
        if not sys.stderr.isatty():
            yield _Bar(None)
            return
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn(f"  {self._stage}: {{task.description}}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(description, total=total)
            yield _Bar(lambda steps: bars.advance(task, steps))
