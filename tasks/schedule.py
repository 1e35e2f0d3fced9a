"""When nights are due: the schedule of the deployment, which ``prefect.yaml`` alone states."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule

from stillhouse.data.files import read_json, write_json
from stillhouse.runner.stage import STATE
from tasks.night import last_closed

__all__ = ["NIGHTLY", "due_times", "handled", "handled_through", "made_at", "nights_due", "schedules_of"]

#: The deployment of the scheduled night, as prefect.yaml names it.
NIGHTLY = "scheduled/nightly"

_RECORD = "scheduled.json"

#: How far back the first night that a person starts may have been due.
_BACK = timedelta(days=31)

#: Most nights that are caught up in one run: more than that is a backfill.
_MOST = 31


def schedules_of(deployment: str = NIGHTLY) -> list[CronSchedule]:
    """Return the active cron schedules of a deployment; empty where there is none, or no such deployment."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return []
    crons: list[Any] = [one.schedule for one in found.schedules if one.active]
    return [CronSchedule(cron=one.cron, timezone=one.timezone) for one in crons if hasattr(one, "cron")]


def made_at(deployment: str = NIGHTLY) -> datetime | None:
    """Return when a deployment was first made: no night was due before; ``None``: there is no such deployment."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(deployment).created
        except ObjectNotFound:
            return None


def due_times(schedules: Sequence[CronSchedule], after: datetime, until: datetime) -> list[datetime]:
    """Return the times in (``after``, ``until``] at which a night was due, oldest first, the last 31 at most.

    Args:
        schedules: of the deployment.
        after: with a zone.
        until: with a zone.

    >>> daily = CronSchedule(cron="0 3 * * *", timezone="UTC")
    >>> first, last = datetime(2026, 3, 1, 3, tzinfo=UTC), datetime(2026, 3, 3, 4, tzinfo=UTC)
    >>> [time.day for time in due_times([daily], first, last)]
    [2, 3]
    """

    async def listed() -> list[datetime]:
        found = {
            moment.astimezone(UTC)
            for schedule in schedules
            for moment in await schedule.get_dates(n=10_000, start=after + timedelta(seconds=1), end=until)
        }
        return sorted(moment for moment in found if after < moment <= until)

    return asyncio.run(listed())[-_MOST:]


def nights_due(
    root: Path,
    schedules: Sequence[CronSchedule],
    until: datetime,
    *,
    by_schedule: bool,
    since: datetime | None = None,
) -> list[datetime | None]:
    """Return the times of the nights that a run has to perform, oldest first.

    Args:
        root: the workspace, which knows what was seen to.
        schedules: of the deployment.
        until: this moment: a run that begins late performs what has become due meanwhile.
        by_schedule: the schedule made the run; otherwise a person did.
        since: when the schedule was made: what was due before is nobody's night.

    Returns:
        Every time since the last night that was seen to. Before there is one: for the schedule those since it was made,
        for a person the last that was due. ``[None]``: a person started it between two of them. Empty: the schedule
        did, and another run was before.
    """
    through, last = handled_through(root), last_closed(root)
    if through is None and (not by_schedule or since is None):
        return [*due_times(schedules, until - _BACK, until)[-1:]] or ([] if by_schedule else [None])
    starts = [through or since, datetime.fromisoformat(last.as_of) if last else None]
    times = due_times(schedules, max(start for start in starts if start is not None), until)
    return list(times) if times or by_schedule else [None]


def handled_through(root: Path) -> datetime | None:
    """Return the last due time whose night has been seen to; ``None``: no scheduled night has run here yet."""
    path = root / STATE / _RECORD
    return datetime.fromisoformat(read_json(path)["through"]) if path.exists() else None


def handled(root: Path, moment: datetime) -> None:
    """Note that the night due at ``moment`` has closed, or that there was nothing to do."""
    before = handled_through(root)
    if before is None or before < moment:
        (root / STATE).mkdir(exist_ok=True)
        write_json(root / STATE / _RECORD, {"through": moment.astimezone(UTC).isoformat()})
