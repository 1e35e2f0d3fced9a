"""One Prefect task run a stage: each brings its own stage up to date through DVC, here or on a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait

from stillhouse.errors import StillhouseError
from stillhouse.params.base import read_yaml
from stillhouse.runner.lifeline import NIGHT_PID, TIME_LIMIT
from stillhouse.runner.outbox import STAGE_RUN
from tasks.attempts import attempt, deliver_left
from tasks.dispatch import Desk, publish, runs_above
from tasks.graph import Stage, bring_up_to_date, followers, read_graph
from tasks.handover import is_current
from tasks.policy import on_pools, policy_of, slot
from tasks.search_paths import programs
from tasks.steps import OpenNight
from tasks.summary import StageReport

__all__ = ["perform_graph"]


def _worth_another_try(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """A known error would only be raised again; anything else may have been the machine."""
    return not isinstance(state.result(raise_on_failure=False), StillhouseError)


@task(name="stage", task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
def _beside(night: OpenNight, compute: Mapping[str, Any], stage: Stage) -> StageReport:
    """Bring the stage up to date here, when one of this process's slots is free."""
    root = night.root
    with slot(stage.resource, compute):
        started = time.monotonic()
        if is_current(root, stage.name):
            deliver_left(root, stage.name)
            return StageReport(stage.name, False, time.monotonic() - started)
        with attempt(root, night.run_id, night.night.id, stage.name) as run_id:
            ran = bring_up_to_date(root, stage.name, _environment(stage, run_id))
        return StageReport(stage.name, ran, time.monotonic() - started)


@task(name="stage on a pool", task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
def _on_pool(desk: Desk, line: list[Stage], stage: Stage) -> StageReport:
    """Have a worker of the stage's pool bring it up to date; the pool's own limit says how many at once."""
    started = time.monotonic()
    done = desk.ask(stage, line, policy_of(stage.resource))
    return StageReport(stage.name, done is not None and done.ran, time.monotonic() - started)


def _environment(stage: Stage, run_id: str) -> dict[str, str]:
    return {
        NIGHT_PID: str(os.getpid()),
        STAGE_RUN: run_id,
        TIME_LIMIT: str(policy_of(stage.resource).limit_seconds),
        "PATH": programs(),
    }


def _submit(
    how: Task[..., StageReport], stage: Stage, upstream: list[PrefectFuture[Any]], *arguments: Any
) -> PrefectFuture[StageReport]:
    policy = policy_of(stage.resource)
    bound = how.with_options(
        retries=policy.retries, retry_delay_seconds=policy.retry_seconds, retry_condition_fn=_worth_another_try
    )
    future: PrefectFuture[StageReport] = bound.submit(*arguments, wait_for=upstream)
    return future


def perform_graph(night: OpenNight) -> list[StageReport]:
    """Bring every stage up to date, side by side where the graph and the slots let them.

    Args:
        night: the night; each stage's tracking run becomes a child of its run.

    Returns:
        A report a stage, in the graph's order.

    Raises:
        StillhouseError: the first stage in that order that ended with a known error.
        RuntimeError: one failed in any other way.
    """
    desk = _desk(night) if on_pools() else None
    graph = read_graph(night.root)
    compute = read_yaml(night.root / "params.yaml").get("compute", {})  # once: an edit changes no slots half-way
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in graph:
        upstream = [futures[name] for name in stage.upstream]
        if desk is None:
            futures[stage.name] = _submit(_beside, stage, upstream, night, compute, stage)
        else:
            futures[stage.name] = _submit(_on_pool, stage, upstream, desk, followers(stage, graph), stage)
    wait(list(futures.values()))
    return [future.result() for future in futures.values()]


def _desk(night: OpenNight) -> Desk:
    commit = publish(night.root, night.night)
    return Desk(night.root, night.night, commit, night.run_id, runs_above())
