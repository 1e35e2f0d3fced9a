"""The tracking run of each attempt at a stage: opened before it, and told afterwards what the stage had to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stillhouse.errors import one_line
from stillhouse.runner import outbox
from stillhouse.runner.stage import STATE
from stillhouse.tracking import runs

__all__ = ["attempt", "deliver_left"]


def deliver_left(root: Path, stage: str) -> None:
    """Deliver what an attempt at ``stage`` has left whose night did not live to deliver it."""
    left = outbox.waiting(root / STATE, stage)
    if left is not None:
        runs.deliver(root, left, "FINISHED" if left.done else "KILLED")
        outbox.drop(root / STATE, stage)


@contextmanager
def attempt(root: Path, night_run: str, night: str, stage: str, opened: str | None = None) -> Iterator[str]:
    """Open the tracking run of an attempt at ``stage``, a child of the night's; give its id to the block.

    Once the block has ended, what the stage left in its outbox is delivered and the run ends: FINISHED, FAILED with
    the line of the error, or KILLED where this process is told to stop. A stage that did not run after all, because
    DVC found its outputs, leaves no run.

    Args:
        root: the workspace.
        night_run: the night's tracking run.
        night: the night's id.
        stage: the stage.
        opened: the attempt's tracking run, where it was opened with an order (`runs.open_stage_run`) that a worker is
            at already.
    """
    deliver_left(root, stage)
    run_id = opened or runs.open_stage_run(root, stage, night_run, night)
    try:
        yield run_id
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        line = one_line(f"{type(error).__name__}: {error}")
        with suppress(Exception):  # the stage's own error is the one to raise; the next attempt ends the run otherwise
            _end(root, stage, run_id, status, line)
        raise
    if _of(root, stage, run_id) is None:
        runs.drop_stage_run(root, run_id)
    deliver_left(root, stage)


def _end(root: Path, stage: str, run_id: str, status: str, line: str) -> None:
    said = _of(root, stage, run_id)
    runs.deliver(root, said or outbox.Message(run_id, {}), status, line)
    if said:
        outbox.drop(root / STATE, stage)


def _of(root: Path, stage: str, run_id: str) -> outbox.Message | None:
    """Return what the attempt whose run is ``run_id`` had to say; an earlier attempt's message is another's."""
    said = outbox.waiting(root / STATE, stage)
    return said if said is not None and said.run_id == run_id else None
