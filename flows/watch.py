"""A look at the workspace between nights: what was due and has not run, a champion that has grown old."""

from __future__ import annotations

from prefect import flow, get_run_logger

from tasks.watching import look_out
from tasks.worksite import workspace_of_worker

__all__ = ["watch"]


@flow(persist_result=False, timeout_seconds=600)
def watch() -> list[str]:
    """Look at the workspace of this worker (STILLHOUSE_WORKSPACE, or the current folder) and emit what holds.

    Returns:
        A line for each thing told.

    Raises:
        StillhouseError: it could not look; the run fails, which is an alert too.
    """
    told = look_out(workspace_of_worker())
    for line in told:
        get_run_logger().warning(line)
    return told
