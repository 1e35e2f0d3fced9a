"""One Prefect task run a stage: each brings its own stage up to date through DVC."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait

from stillhouse.errors import StillhouseError
from stillhouse.runner.lifeline import NIGHT_PID, TIME_LIMIT
from stillhouse.runner.stage import NIGHT_RUN
from tasks.graph import Stage, bring_up_to_date, read_graph
from tasks.policy import policy_of, slot
from tasks.summary import StageReport

__all__ = ["perform_graph"]


def _worth_another_try(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """A known error would only be raised again; anything else may have been the machine."""
    return not isinstance(state.result(raise_on_failure=False), StillhouseError)


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def _stage(name: str, root: Path, resource: str, environment: Mapping[str, str]) -> StageReport:
    with slot(resource):
        started = time.monotonic()
        ran = bring_up_to_date(root, name, environment)
        return StageReport(name, ran, time.monotonic() - started)


def _submit(root: Path, stage: Stage, run_id: str, upstream: list[PrefectFuture[Any]]) -> PrefectFuture[Any]:
    policy = policy_of(stage.resource)
    here = str(Path(sys.executable).parent)
    environment = {
        NIGHT_PID: str(os.getpid()),
        NIGHT_RUN: run_id,
        TIME_LIMIT: str(policy.limit_seconds),
        "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)]),
    }
    bound = _stage.with_options(
        retries=policy.retries, retry_delay_seconds=policy.retry_seconds, retry_condition_fn=_worth_another_try
    )
    future: PrefectFuture[Any] = bound.submit(  # type: ignore[call-overload]  # Prefect's overloads forget wait_for
        stage.name, root, stage.resource, environment, wait_for=upstream
    )
    return future


def perform_graph(root: Path, run_id: str) -> list[StageReport]:
    """Bring every stage up to date, side by side where the graph and the slots let them.

    Args:
        root: the workspace.
        run_id: the night's tracking run; each stage's run becomes its child.

    Returns:
        A report a stage, in the graph's order.

    Raises:
        StillhouseError: the first stage in that order that ended with a known error.
        RuntimeError: one failed in any other way.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in read_graph(root):
        futures[stage.name] = _submit(root, stage, run_id, [futures[name] for name in stage.upstream])
    wait(list(futures.values()))
    return [future.result() for future in futures.values()]
