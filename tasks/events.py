"""What a night and its watch have to say beyond their end, as Prefect events that automations turn into alerts.

Each event's payload is what a person reads: ``title``, one line, and ``body``. Without a Prefect server nobody
listens, and nothing is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.settings import get_current_settings

from stillhouse.data.files import read_json
from stillhouse.errors import StillhouseError, one_line
from stillhouse.params.alerts import AlertsParams
from stillhouse.params.document import load_document
from tasks.gate import Decision

__all__ = [
    "MISSED",
    "OLD",
    "QUARANTINED",
    "REFUSED",
    "STOPPED",
    "emit",
    "quarantined_beyond",
    "tell_missed",
    "tell_of_decision",
    "tell_of_quarantine",
    "tell_old",
    "tell_stopped",
    "telling_why_stopped",
]

REFUSED = "stillhouse.night.refused"
QUARANTINED = "stillhouse.night.quarantined"
STOPPED = "stillhouse.night.stopped"
MISSED = "stillhouse.night.missed"
OLD = "stillhouse.champion.old"


def emit(event: str, root: Path, resource: str, title: str, body: str) -> bool:
    """Emit one event about a workspace, related to the flow run that it happens in.

    Args:
        event: its name.
        root: the workspace; it becomes the related resource ``stillhouse.workspace.NAME``.
        resource: what it is about: ``night.ID``, ``champion.VERSION`` or ``schedule``.
        title: one line.
        body: what happened, and what to do.

    Returns:
        Whether it went out; ``False``: no Prefect server is set.
    """
    if get_current_settings().api.url is None:
        return False
    about = {"prefect.resource.id": f"stillhouse.{resource}", "prefect.resource.name": resource}
    workspace = {
        "prefect.resource.id": f"stillhouse.workspace.{root.resolve().name}",
        "prefect.resource.name": root.resolve().name,
        "prefect.resource.role": "stillhouse.workspace",
    }
    payload = {"title": one_line(title), "body": body}
    return emit_event(event, resource=about, related=[workspace], payload=payload) is not None


def tell_of_decision(root: Path, night: str, decision: Decision) -> bool:
    """Say that no student passed the gate, once a night, with each student's reason; ``False``: one did."""
    if decision.chosen is not None:
        return False
    count = len(decision.verdicts)
    title = f"Night {night}: the gate refused every student ({count} of {count})"
    reasons = [f"{verdict.student}: {verdict.reason}" for verdict in reversed(decision.verdicts)]
    stands = "none yet" if decision.champion is None else f"version {decision.champion}"
    body = "\n".join([*reasons, "", f"The champion stands: {stands}.", "Look further: stillhouse history"])
    return emit(REFUSED, root, f"night.{night}", title, body)


def quarantined_beyond(verdict: Mapping[str, Any], alerts: AlertsParams) -> float | None:
    """Return the share of the night's rows in quarantine where it is above ``alerts.max_quarantined``, else ``None``.

    >>> quarantined_beyond({"snapshot_rows": 200, "quarantined_rows": 3}, AlertsParams(max_quarantined=0.01))
    0.015
    >>> quarantined_beyond({"snapshot_rows": 200, "quarantined_rows": 3}, AlertsParams(max_quarantined=0))
    """
    rows = verdict["snapshot_rows"]
    share = verdict["quarantined_rows"] / rows if rows else 0.0
    return share if alerts.max_quarantined and share > alerts.max_quarantined else None


def tell_of_quarantine(root: Path, night: str) -> bool:
    """Say that more rows are in quarantine than ``alerts.max_quarantined``; ``False``: there are not.

    Beyond ``admit.max_quarantined`` the night stops, and that is another alert.
    """
    alerts = load_document(root / "params.yaml")[0].alerts
    verdict = read_json(root / "reports" / "verdict.json")
    share = quarantined_beyond(verdict, alerts)
    if share is None:
        return False
    title = f"Night {night}: {share:.1%} of the rows are in quarantine"
    reasons = sorted(verdict["reasons"].items(), key=lambda one: -one[1])
    counted = [f"{count} rows: {reason}" for reason, count in reasons]
    told = f"{verdict['quarantined_rows']} of {verdict['snapshot_rows']} rows may not enter"
    limit = f"(params.yaml: alerts.max_quarantined is {alerts.max_quarantined:.1%}); the night went on without them."
    body = "\n".join([f"{told} {limit}", *counted, "", "Look further: reports/data_docs/index.html"])
    return emit(QUARANTINED, root, f"night.{night}", title, body)


def tell_stopped(root: Path, night: str, error: StillhouseError) -> bool:
    """Say that a known error stopped the night, and its line."""
    body = f"{error}\n\nIt harmed nothing, and the next run goes on from there: stillhouse run"
    return emit(STOPPED, root, f"night.{night}", f"Night {night} stopped: {type(error).__name__}", body)


@contextlib.contextmanager
def telling_why_stopped(root: Path, night: str) -> Iterator[None]:
    """Emit `STOPPED` where the block raises a known error and no flow stands above this one.

    A night within another flow fails that flow's run, which is an alert of its own with the same line.
    """
    try:
        yield
    except StillhouseError as error:
        here = FlowRunContext.get()
        if here is None or here.flow_run is None or here.flow_run.parent_task_run_id is None:
            tell_stopped(root, night, error)
        raise


def tell_missed(root: Path, times: Sequence[str]) -> bool:
    """Say which scheduled nights have not run.

    Args:
        root: the workspace.
        times: a line a night: its time, and what became of its run.
    """
    count = len(times)
    title = "A scheduled night has not run" if count == 1 else f"{count} scheduled nights have not run"
    body = "\n".join(
        [*times, "", "Look whether server and workers are up (prefect worker ls) and whether the deployment is paused."]
    )
    return emit(MISSED, root, "schedule", title, body)


def tell_old(root: Path, version: int, days: float, limit: float) -> bool:
    """Say that the champion is older than ``alerts.max_champion_days``."""
    title = f"The champion is {days:.0f} days old"
    body = (
        f"Student version {version} comes from a night {days:.1f} days ago "
        f"(params.yaml: alerts.max_champion_days is {limit:g}): no student has passed the gate since, or no night has "
        "run.\n\nLook further: stillhouse status, stillhouse history"
    )
    return emit(OLD, root, f"champion.{version}", title, body)
