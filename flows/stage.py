"""A stage of a night on a worker of a pool, and those that follow it there."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime

from stillhouse.collector import end_at_once, look_seldom
from stillhouse.errors import by_name
from tasks.answering import answer, end_with
from tasks.graph import hush
from tasks.order import Order
from tasks.output import outlive_reader
from tasks.worksite import carry_out, workspace_of_worker

__all__ = ["stage"]


def _name() -> str:
    return Order.of(runtime.flow_run.parameters["order"]).name


@flow(flow_run_name=_name, validate_parameters=False, persist_result=False)
def stage(order: dict[str, Any]) -> None:
    """Bring the stages of an order up to date in this worker's clone, and answer on each with hashes.

    Args:
        order: a `tasks.order.Order` as plain data.

    Raises:
        StillhouseError: a stage, or this worker, cannot do it; the night's process raises it too.
        RuntimeError: a stage ended in any other way.
    """
    outlive_reader()
    look_seldom()
    end_at_once()
    hush()
    asked = Order.of(order)
    own = str(runtime.flow_run.id)
    with end_with(own, *asked.parents) as given_up:
        for done in carry_out(asked, workspace_of_worker(), given_up):
            answer(done, own)
            if done.error is not None:
                raise by_name(done.known or "")(done.error)
