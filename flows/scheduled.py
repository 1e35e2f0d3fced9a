"""What the schedule starts: every night that is due in the worker's workspace, each by its own time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client

from flows.nightly import nightly
from stillhouse.collector import end_at_once, look_seldom
from stillhouse.errors import DataError, StillhouseError, TrainingError
from tasks.champion import repair
from tasks.events import tell_stopped
from tasks.graph import hush
from tasks.mending import mend
from tasks.output import outlive_reader
from tasks.plan import Request, plan_night
from tasks.schedule import handled, made_at, nights_due, schedules_of
from tasks.versions import require_workspace
from tasks.worksite import workspace_of_worker
from tasks.workspace import exclusive

__all__ = ["scheduled"]

#: What a night may end with and yet have been seen to: waiting would not change it.
_VERDICTS = (DataError, TrainingError)

#: Seconds that a night waits for whoever is at work in the workspace, such as a collection of garbage or a person.
_PATIENCE = 600.0


@flow(persist_result=False)
def scheduled(as_of: str | None = None, source: str | None = None, force: bool = False, cold: bool = False) -> None:
    """Perform the nights that are due in this worker's workspace; one whose time was missed comes first.

    Args:
        as_of: perform the night of this time alone, such as ``2026-03-02T03:00+01:00``.
        source: where interactions come from, in place of params.yaml's.
        force: perform it even where there is nothing new.
        cold: start its weights afresh.

    Raises:
        StillhouseError: a night was stopped. Where its data or its teacher was to blame, later ones were performed.
        RuntimeError: it failed otherwise; it is due again.
    """
    outlive_reader()
    look_seldom()
    end_at_once()
    root = workspace_of_worker()
    os.chdir(root)
    hush()
    require_workspace(root)
    with exclusive(root, patience=_PATIENCE):
        mend(root)
        stopped: list[StillhouseError] = []
        for moment in [None] if as_of else _due(root):
            asked = as_of or (moment.isoformat() if moment else None)
            try:
                _perform(Request(root, source=source, as_of=asked, force=force, cold=cold, past=moment is not None))
            except _VERDICTS as error:
                if stopped:  # this run's end tells of the first
                    tell_stopped(root, asked or "due now", error)
                stopped.append(error)
            if moment is not None:
                handled(root, moment)
        if stopped:
            raise stopped[0]


def _due(root: Path) -> Iterator[datetime | None]:
    """Give what is due, and then what has become due while that was performed."""
    with get_client(sync_client=True) as client:
        by_schedule = bool(client.read_flow_run(runtime.flow_run.id).auto_scheduled)
    schedules, since = schedules_of(), made_at()
    while due := nights_due(root, schedules, datetime.now(UTC), by_schedule=by_schedule, since=since):
        yield from due
        by_schedule = True  # a person's own night is one; what comes after it is the schedule's


def _perform(request: Request) -> None:
    log = get_run_logger()
    plan = plan_night(request)
    if plan.action == "nothing":
        repair(request.workspace)
        log.info("nothing to do: the source holds nothing new since night %s closed", plan.night.id)
        return
    log.info("night %s: %s", plan.night.id, plan.action)
    for note in plan.notes:
        log.info(note)
    for line in nightly(request, plan).closing_lines:
        log.info(line)
