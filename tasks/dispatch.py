"""The night's side of a stage on a pool: the order goes out, the answer is waited for, its outputs are taken up.

An order names a stage and those that follow it on the same pool (`tasks.graph.followers`), for to start a worker's run
costs more than many a stage. Each still has its own task, attempt and answer in the night: the task of a stage that is
on order already waits for the answer on that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from stillhouse.tracking.runs import drop_stage_run, open_stage_run
from tasks import remote, versions
from tasks.answering import answer_of, patiently
from tasks.attempts import attempt, deliver_left
from tasks.graph import Stage
from tasks.handover import is_current, send, take_outputs, upstream_entries
from tasks.night import PREVIOUS, Night
from tasks.order import Done, Order, Step, code_digest
from tasks.policy import Policy
from tasks.worksite import bundle_name

__all__ = ["STAGE_FLOW", "Desk", "publish", "runs_above"]

#: The flow that a worker runs; each pool has a deployment of it that bears the pool's name.
STAGE_FLOW = "stage"


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


@dataclass(frozen=True)
class _OnOrder:
    """Where a stage is performed, or will be: the worker's flow run, and the tracking run that it was given."""

    run: UUID
    run_id: str


class Desk:
    """Where one night's process orders its stages from workers; for all its threads.

    Args:
        root: the workspace.
        night: the night.
        commit: of its open tag (`publish`).
        night_run: the night's tracking run.
        above: `runs_above` of the night's flow.
    """

    def __init__(self, root: Path, night: Night, commit: str, night_run: str, above: tuple[str, ...]) -> None:
        self._root, self._night, self._commit, self._night_run, self._above = root, night, commit, night_run, above
        # What each stage was last ordered with. No two threads touch one stage's: a line begins one after the other.
        self._on_order: dict[str, _OnOrder] = {}

    def ask(self, stage: Stage, line: Sequence[Stage], policy: Policy) -> Done | None:
        """Have a worker of the stage's pool bring it up to date, and take up what it made.

        Args:
            stage: the stage; what it takes is up to date here.
            line: its `followers`, which are ordered with it.
            policy: the pool's limits.

        Returns:
            How it went; ``None``: it was up to date already, and nobody was asked.

        Raises:
            StillhouseError: the known error that the stage ended with on the worker.
            NightError: no worker of the pool is there, or what came back is of other code or data.
            RuntimeError: the worker's run crashed or was cancelled.
        """
        root, name = self._root, stage.name
        ordered = self._on_order.get(name)
        if is_current(root, name):
            deliver_left(root, name)
            if ordered:
                drop_stage_run(root, ordered.run_id)
            return None
        with attempt(root, self._night_run, self._night.id, name, ordered.run_id if ordered else None) as run_id:
            done = self._answer(stage, ordered, policy) if ordered else None
            if done is None:  # not on order, or the worker ended before it: it had nothing new to take
                done = self._answer(stage, self._order(stage, line, run_id, policy), policy)
            if done is None:
                raise RuntimeError(_unanswered(stage, "none"))
            if done.message is not None:  # first of all: it lies nowhere else that this night will look
                outbox.post(root / STATE, name, outbox.Message(**done.message))
            if done.error is not None:
                raise by_name(done.known or "")(done.error)
            take_outputs(root, name, done.entry or {}, f"pool {stage.resource}")
        return done

    def _order(self, stage: Stage, line: Sequence[Stage], run_id: str, policy: Policy) -> _OnOrder:
        """Give the stage and its line to a worker."""
        run_ids = {one.name: open_stage_run(self._root, one.name, self._night_run, self._night.id) for one in line}
        run_ids[stage.name] = run_id
        run = self._send(stage, line, run_ids, policy)
        self._on_order.update({name: _OnOrder(run, one) for name, one in run_ids.items()})
        return self._on_order[stage.name]

    def _answer(self, stage: Stage, ordered: _OnOrder, policy: Policy) -> Done | None:
        """Wait as `_answer_on` does. An order stands unless it ends without an answer.

        So an attempt that failed on this side, with a full disk say, is not followed by an order of what a worker is
        at still: the next attempt hears the same answer.
        """
        done = None
        try:
            done = _answer_on(stage, ordered.run, policy)
        finally:
            if done is None:
                del self._on_order[stage.name]
        return done

    def _send(self, stage: Stage, line: Sequence[Stage], run_ids: Mapping[str, str], policy: Policy) -> UUID:
        order = Order(
            night=self._night.id,
            commit=self._commit,
            steps=tuple(self._step(one, run_ids) for one in (stage, *line)),
            code=code_digest(),
            parents=self._above,
            limit_seconds=policy.limit_seconds,
            resource=stage.resource,
        )
        return UUID(str(patiently(partial(_asked, stage, order)).id))

    def _step(self, stage: Stage, run_ids: Mapping[str, str]) -> Step:
        before = tuple(name for name in stage.upstream if name not in run_ids)
        return Step(stage.name, upstream_entries(self._root, before), run_ids[stage.name])


def _asked(stage: Stage, order: Order) -> Any:
    """Return the run that the order was given to; asked twice, it is the same one.

    Raises:
        NightError: nobody has deployed the flow that runs stages.
    """
    name = f"{STAGE_FLOW}/{stage.resource}"
    try:
        return run_deployment(
            name,
            parameters={"order": order.document()},
            flow_run_name=order.name,
            timeout=0,
            # Another attempt of this task is another run; the same attempt never is.
            idempotency_key=f"{runtime.flow_run.id}:{stage.name}:{runtime.task_run.run_count}",
        )
    except ObjectNotFound:
        raise NightError(
            f"the deployment {name} must be on the Prefect server, found none (PREFECT_API_URL): stillhouse deploy"
        ) from None


def _answer_on(stage: Stage, run_id: UUID, policy: Policy) -> Done | None:
    """Wait for the answer on the stage; ``None``: the worker ended well, and before it came to the stage.

    Raises:
        NightError: nobody is there to take the run.
        RuntimeError: the run ended otherwise, without an answer.
    """
    with get_client(sync_client=True) as client:
        for run in _looks(client, run_id, stage, policy):
            over = run.state is not None and run.state.is_final()
            if done := patiently(partial(answer_of, client, run_id, stage.name)):
                return done
            if over:
                break
    if run.state is not None and run.state.is_completed():
        return None
    found = "nothing" if run.state is None else f"{run.state.name}: {run.state.message or 'no message'}"
    raise RuntimeError(_unanswered(stage, found))


def _unanswered(stage: Stage, found: str) -> str:
    return one_line(f"stage {stage.name} on pool {stage.resource} must end with an answer: {found}")


def _looks(client: SyncPrefectClient, run_id: UUID, stage: Stage, policy: Policy) -> Iterator[FlowRun]:
    """Give the run as it is, every so often, once it has begun; a server that is away for a while is waited for too."""
    began = waiting_since = taken_since = time.monotonic()
    while True:
        run = patiently(lambda: client.read_flow_run(run_id))
        begun = run.state is not None and (run.state.is_running() or run.state.is_cancelling() or run.state.is_final())
        if run.state is None or not run.state.is_pending():
            taken_since = time.monotonic()
        if begun:
            waiting_since = time.monotonic()
            yield run
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
        time.sleep(_pause(time.monotonic() - began))


def _pause(waited: float) -> float:
    """Return the seconds until the next look at a run that was looked at for ``waited`` seconds: each asks the server.

    >>> [_pause(waited) for waited in (0.0, 20.0, 3600.0)]
    [0.5, 1.0, 2.0]
    """
    return min(max(0.5, waited / 20), 2.0)


def _staffed(client: SyncPrefectClient, pool: str) -> bool:
    workers = patiently(lambda: client.read_workers_for_work_pool(pool))
    return any(str(getattr(worker.status, "value", worker.status)).upper() == "ONLINE" for worker in workers)
