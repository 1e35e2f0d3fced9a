"""What a watch looks for between nights: a scheduled time that went by without a night, a champion too old.

The schedule stands in ``prefect.yaml`` alone; the watch reads it from the deployment that was made of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from stillhouse.data.files import read_json, write_json
from stillhouse.errors import NightError
from stillhouse.lineage.projection import state
from stillhouse.params.alerts import AlertsParams
from stillhouse.params.document import load_document
from stillhouse.runner.stage import STATE
from stillhouse.tracking.registry import STUDENT
from tasks import versions
from tasks.champion import ledger_entries
from tasks.events import tell_missed, tell_old
from tasks.night import closed_night, last_closed
from tasks.schedule import NIGHTLY, due_times, handled_through, schedules_of

__all__ = ["Champion", "Due", "champion_of", "look_out", "missed", "nights_due", "old"]

#: What was told already: nobody is told of one missed night every hour.
_RECORD = "watched.json"

#: How far back a watch looks.
_BACK = timedelta(days=31)
#: Kinds of state of a run that is its night, or was. One that still waits for a worker after the hours it may be late
#: is told of: where no worker is left, nothing else would say so.
_AT_WORK = frozenset({"RUNNING", "PAUSED", "CANCELLING", "COMPLETED"})


@dataclass(frozen=True)
class Due:
    """One time at which a night was due, and what became of its run."""

    time: datetime
    kind: str | None = None
    """Kind of the run's state, such as ``COMPLETED``; ``None``: there is no run."""
    state: str | None = None
    """The state's name, such as ``TimedOut``."""

    @property
    def line(self) -> str:
        """The time and what became of it, for a person."""
        what = "no run was made" if self.state is None else f"its run is {self.state}"
        return f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {what}"


@dataclass(frozen=True)
class Champion:
    """The champion, and the time that its night was for."""

    version: int
    as_of: datetime


def missed(dues: Iterable[Due], *, now: datetime, after: Iterable[datetime | None], alerts: AlertsParams) -> list[Due]:
    """Return the times that went by without a night.

    Args:
        dues: the times at which nights were due.
        now: this moment.
        after: times up to which all is well: the last closed night's, the last handled, the last told.
        alerts: ``max_late_hours`` says how late a night may be; 0 or null: as late as it likes.

    Returns:
        Those more than ``max_late_hours`` ago and after every one of ``after`` whose run is neither at work nor
        completed, oldest first. A run that waits for a worker all that time, failed or was cancelled is no night.
    """
    if not alerts.max_late_hours:
        return []
    latest = now - timedelta(hours=alerts.max_late_hours)
    since = max((one for one in after if one is not None), default=datetime.min.replace(tzinfo=UTC))
    return sorted(
        (due for due in dues if since < due.time < latest and due.kind not in _AT_WORK), key=lambda due: due.time
    )


def old(champion: Champion | None, *, now: datetime, alerts: AlertsParams) -> float | None:
    """Return the champion's age in days where it is above ``alerts.max_champion_days``, else ``None``."""
    if champion is None or not alerts.max_champion_days:
        return None
    days = (now - champion.as_of) / timedelta(days=1)
    return days if days > alerts.max_champion_days else None


def champion_of(root: Path) -> Champion | None:
    """Return the champion by the ledger; its time is its night's ``as_of``, or its entry's where no night has closed.

    Raises:
        RegistryError: the ledger is not whole.
    """
    entries = ledger_entries(root)
    version = state(entries).champion
    if version is None:
        return None
    first = next(one.entry for one in entries if (one.entry.model, one.entry.version) == (STUDENT, version))
    if first.night is not None and versions.tag_commit(root, first.night, versions.CLOSED):
        return Champion(version, datetime.fromisoformat(closed_night(root, first.night).as_of))
    return Champion(version, datetime.fromisoformat(first.time))


def nights_due(now: datetime, since: datetime) -> list[Due]:
    """Return every time after ``since`` and up to ``now`` at which the deployment's schedule had a night due.

    A paused deployment, or one without an active schedule, has none; nor has any time before it was made.

    Raises:
        NightError: there is no such deployment.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployment(client)
        if deployment.paused:
            return []
        start = max(since, now - _BACK, deployment.created or since)
        found = _runs(client, deployment, start)
    return [Due(time, *found.get(time, (None, None))) for time in due_times(schedules_of(NIGHTLY), start, now)]


def _deployment(client: SyncPrefectClient) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(NIGHTLY)
    except ObjectNotFound:
        raise NightError(
            f"the deployment {NIGHTLY} must be on the Prefect server, found none: stillhouse deploy"
        ) from None


def _runs(
    client: SyncPrefectClient, deployment: DeploymentResponse, start: datetime
) -> Mapping[datetime, tuple[str, str]]:
    """Return the time that a run was for → kind and name of its state; of several, one at work."""
    wanted = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(after_=start))
    of = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    runs: list[Any] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, deployment_filter=of, limit=200, offset=len(runs)):
        runs += page
    runs.sort(key=lambda run: run.state is not None and run.state.type.value in _AT_WORK)
    return {
        run.expected_start_time.astimezone(UTC): (run.state.type.value, run.state.name)
        for run in runs
        if run.expected_start_time is not None and run.state is not None
    }


def look_out(root: Path, now: datetime | None = None) -> list[str]:
    """Look at workspace and schedule once, and emit what holds: each missed night once, an old champion once a day.

    Args:
        root: the workspace.
        now: the moment to look from; ``None``: this one.

    Returns:
        A line for each thing told.

    Raises:
        ParamsError: params.yaml is wrong.
        NightError: the deployment of the schedule is not there, or the workspace's own records cannot be read.
        RegistryError: the ledger is not whole.
    """
    now = now or datetime.now(UTC)
    alerts = load_document(root / "params.yaml")[0].alerts
    told = _told(root)
    lines = [*_look_for_missed(root, now, alerts, told), *_look_at_champion(root, now, alerts, told)]
    if lines:
        (root / STATE).mkdir(exist_ok=True)
        write_json(root / STATE / _RECORD, told)
    return lines


def _look_for_missed(root: Path, now: datetime, alerts: AlertsParams, told: dict[str, Any]) -> Sequence[str]:
    if not alerts.max_late_hours:
        return []
    last = last_closed(root)
    before = [
        datetime.fromisoformat(last.as_of) if last else None,
        handled_through(root),
        datetime.fromisoformat(told["missed_through"]) if "missed_through" in told else None,
    ]
    since = max((one for one in before if one is not None), default=now - _BACK)
    found = missed(nights_due(now, since), now=now, after=before, alerts=alerts)
    if not found or not tell_missed(root, [due.line for due in found]):
        return []
    told["missed_through"] = found[-1].time.isoformat()
    return [due.line for due in found]


def _look_at_champion(root: Path, now: datetime, alerts: AlertsParams, told: dict[str, Any]) -> Sequence[str]:
    champion = champion_of(root) if alerts.max_champion_days else None
    days = old(champion, now=now, alerts=alerts)
    today = {"version": champion.version, "day": now.astimezone(UTC).date().isoformat()} if champion else None
    if champion is None or days is None or told.get("old") == today:
        return []
    if not tell_old(root, champion.version, days, alerts.max_champion_days or 0.0):
        return []
    told["old"] = today
    return [f"champion version {champion.version} is {days:.0f} days old"]


def _told(root: Path) -> dict[str, Any]:
    """Return what was told already; a record that is damaged counts as empty, and all is told once more."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        found = read_json(root / STATE / _RECORD)
        if isinstance(found, dict):
            datetime.fromisoformat(found.get("missed_through", "2000-01-01"))
            return found
    return {}
