"""The night's side of a stage on a pool: the order goes out, the answer is waited for, its outputs are taken up."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from stillhouse.errors import NightError, by_name, one_line
from stillhouse.runner import outbox
from stillhouse.runner.stage import STATE
from tasks import remote, versions
from tasks.answering import answer_of, patiently
from tasks.attempts import attempt, deliver_left
from tasks.graph import Stage
from tasks.handover import is_current, send, take_outputs, upstream_entries
from tasks.night import PREVIOUS, Night
from tasks.order import Done, Order, code_digest
from tasks.policy import Policy
from tasks.worksite import bundle_name

__all__ = ["STAGE_FLOW", "ask", "publish", "runs_above"]

#: The flow that a worker runs; each pool has a deployment of it that bears the pool's name.
STAGE_FLOW = "stage"

#: Seconds between two looks at a run.
_LOOK = 0.5


def publish(root: Path, night: Night) -> str:
    """Put what a night starts from into DVC's remote, where workers find it, and return its open tag's commit.

    Raises:
        NightError: the night was not opened, or the remote cannot be written.
    """
    commit = versions.tag_commit(root, night.id, versions.OPEN)
    if commit is None:
        raise NightError(f"night {night.id} must be open, found no tag night/{night.id}/open")
    send(root, f"{PREVIOUS}.dvc")
    name = bundle_name(night.id, commit)
    if remote.get(root, name) is None:
        remote.put(root, name, versions.bundle(root, night.id, versions.OPEN))
    return commit


def runs_above() -> tuple[str, ...]:
    """Return the flow run that this is called in, and the one that it is a part of at last.

    A stage ends with either: a worker that sees a scheduled night die reports that run, and no other.
    """
    found = (runtime.flow_run.id, runtime.flow_run.root_flow_run_id)
    return tuple(dict.fromkeys(str(one) for one in found if one))


def ask(
    root: Path, night: Night, commit: str, stage: Stage, policy: Policy, *, night_run: str, above: tuple[str, ...]
) -> Done | None:
    """Have a worker of the stage's pool bring it up to date, and take up what it made.

    Args:
        root: the workspace.
        night: the night.
        commit: of its open tag (`publish`).
        stage: the stage; what it takes is up to date here.
        policy: its limits.
        night_run: the night's tracking run.
        above: `runs_above` of the night's flow.

    Returns:
        How it went; ``None``: it was up to date already, and nobody was asked.

    Raises:
        StillhouseError: the known error that the stage ended with on the worker.
        NightError: no worker of the pool is there, or what came back is of other code or data.
        RuntimeError: the worker's run crashed or was cancelled.
    """
    if is_current(root, stage.name):
        deliver_left(root, stage.name)
        return None
    with attempt(root, night_run, night.id, stage.name) as run_id:
        order = Order(
            night=night.id,
            commit=commit,
            stage=stage.name,
            inputs=upstream_entries(root, stage.upstream),
            code=code_digest(),
            run_id=run_id,
            parents=above,
            limit_seconds=policy.limit_seconds,
        )
        done = _answered(night, stage, order, policy)
        if done.message is not None:  # first of all: it lies nowhere else that this night will look
            outbox.post(root / STATE, stage.name, outbox.Message(**done.message))
        if done.error is not None:
            raise by_name(done.known or "")(done.error)
        take_outputs(root, stage.name, done.entry or {}, f"pool {stage.resource}")
    return done


def _answered(night: Night, stage: Stage, order: Order, policy: Policy) -> Done:
    """Give the order to a worker and return its answer.

    Raises:
        RuntimeError: it left none.
    """
    run = patiently(partial(_asked, night, stage, order))
    with get_client(sync_client=True) as client:
        ended = _wait(client, run.id, stage, policy)
        done = patiently(lambda: answer_of(client, run.id))
    if done is None or ended.state is None or (done.error is None and not ended.state.is_completed()):
        found = "nothing" if ended.state is None else f"{ended.state.name}: {ended.state.message or 'no message'}"
        raise RuntimeError(one_line(f"stage {stage.name} on pool {stage.resource} must end with an answer: {found}"))
    return done


def _asked(night: Night, stage: Stage, order: Order) -> Any:
    """Return the run that the order was given to; asked twice, it is the same one.

    Raises:
        NightError: nobody has deployed the flow that runs stages.
    """
    name = f"{STAGE_FLOW}/{stage.resource}"
    try:
        return run_deployment(
            name,
            parameters={"order": order.document()},
            flow_run_name=f"{night.id}: {stage.name}",
            timeout=0,
            # Another attempt of this task is another run; the same attempt never is.
            idempotency_key=f"{runtime.flow_run.id}:{stage.name}:{runtime.task_run.run_count}",
        )
    except ObjectNotFound:
        raise NightError(
            f"the deployment {name} must be on the Prefect server, found none (PREFECT_API_URL): stillhouse deploy"
        ) from None


def _wait(client: SyncPrefectClient, run_id: UUID, stage: Stage, policy: Policy) -> FlowRun:
    """Wait until the run has ended; a server that is away for a while is waited for too."""
    waiting_since = taken_since = time.monotonic()
    while True:
        run = patiently(lambda: client.read_flow_run(run_id))
        if run.state is not None and run.state.is_final():
            return run
        begun = run.state is not None and (run.state.is_running() or run.state.is_cancelling())
        if run.state is None or not run.state.is_pending():
            taken_since = time.monotonic()
        if begun:
            waiting_since = time.monotonic()
        elif time.monotonic() - taken_since > policy.start_seconds:  # no process, so no heartbeat whose end would tell
            lost: State[Any] = Crashed(message=f"taken by a worker and not begun for {policy.start_seconds:.0f} s")
            patiently(partial(client.set_flow_run_state, run_id, lost, force=True))
        elif time.monotonic() - waiting_since > policy.pickup_seconds and not _staffed(client, stage.resource):
            given_up: State[Any] = Cancelled(message="no worker was there to take it")
            patiently(partial(client.set_flow_run_state, run_id, given_up, force=True))
            raise NightError(
                f"pool {stage.resource} must have a worker, found none at work for {policy.pickup_seconds:.0f} s: "
                f"prefect worker start --pool {stage.resource} (stillhouse stack status)"
            )
        time.sleep(_LOOK)


def _staffed(client: SyncPrefectClient, pool: str) -> bool:
    workers = patiently(lambda: client.read_workers_for_work_pool(pool))
    return any(str(getattr(worker.status, "value", worker.status)).upper() == "ONLINE" for worker in workers)
