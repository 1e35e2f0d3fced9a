"""One alert: sent to every target, and failed where one of them did not take it."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.futures import wait

from tasks.alerting import deliver, targets

__all__ = ["alert"]


@flow(flow_run_name="{title}", persist_result=False, timeout_seconds=1800)
def alert(title: str, body: str) -> list[str]:
    """Send an alert to every target in STILLHOUSE_ALERT_URLS.

    Args:
        title: one line.
        body: what happened, and what to do.

    Returns:
        What may be said of each target: its kind and host.

    Raises:
        ParamsError: no target is set, or one is no URL.
        AlertError: a target did not take the alert; the others have it.
    """
    futures = [deliver.submit(number, title, body) for number in range(1, len(targets()) + 1)]
    wait(futures)
    sent = [future.result() for future in futures]
    get_run_logger().info("sent to %s", ", ".join(sent))
    return sent
