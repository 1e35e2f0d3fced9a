"""One stage of a night on a worker of a pool."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime

from stillhouse.errors import by_name
from tasks.answering import answer, end_with
from tasks.graph import hush
from tasks.order import Order
from tasks.worksite import carry_out, workspace_of_worker

__all__ = ["stage"]


@flow(flow_run_name="{order[night]}: {order[stage]}", validate_parameters=False, persist_result=False)
def stage(order: dict[str, Any]) -> None:
    """Bring one stage of a night up to date in this worker's clone, and answer with hashes.

    Args:
        order: a `tasks.order.Order` as plain data.

    Raises:
        StillhouseError: the stage, or this worker, cannot do it; the night's process raises it too.
        RuntimeError: the stage ended in any other way.
    """
    hush()
    asked = Order(**order)
    own = str(runtime.flow_run.id)
    with end_with(own, *asked.parents):
        done = carry_out(asked, workspace_of_worker())
    answer(done, own)
    if done.error is not None:
        raise by_name(done.known or "")(done.error)
