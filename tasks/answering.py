"""What stands between a night and its stages on workers: the answer on the worker's run, and an end together."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from stillhouse.errors import NightError, one_line
from tasks.order import Done

__all__ = ["LOOK", "answer", "answer_of", "end_with", "patiently"]

T = TypeVar("T")

#: Type of the artifact that holds the answer on one stage: hashes, names and times, no data.
_TYPE = "stage-answer:{stage}"

#: Seconds between two looks at the runs that a stage ends with.
LOOK = 10.0

#: Longest that a Prefect server may be away while somebody waits for it.
_SERVER_AWAY = 600.0


def patiently(asking: Callable[[], T]) -> T:
    """Return what ``asking`` returns, once the server answers.

    Raises:
        NightError: it refuses, or has not answered for ten minutes.
    """
    until = time.monotonic() + _SERVER_AWAY
    while True:
        try:
            return asking()
        except ObjectNotFound:
            raise
        except (httpx.TransportError, PrefectHTTPStatusError, OSError) as error:
            refused = isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500
            if refused or time.monotonic() > until:
                raise NightError(
                    one_line(f"the Prefect server must answer, got {type(error).__name__}: {error} (PREFECT_API_URL)")
                ) from error
            time.sleep(1.0)


def answer(done: Done, run: str) -> None:
    """Write how a stage went on the worker's flow run ``run``; a server that is away for a while is waited for."""
    told = ArtifactCreate(type=_TYPE.format(stage=done.stage), data=json.dumps(done.document()), flow_run_id=UUID(run))
    with get_client(sync_client=True) as client:
        patiently(lambda: client.create_artifact(told))


def answer_of(client: SyncPrefectClient, run: UUID, stage: str) -> Done | None:
    """Return the answer on ``stage`` on the worker's flow run ``run``, or ``None`` where it left none so far."""
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run]),
        type=ArtifactFilterType(any_=[_TYPE.format(stage=stage)]),
    )
    found = client.read_artifacts(artifact_filter=wanted)
    return Done(**json.loads(str(found[0].data))) if found else None


@contextlib.contextmanager
def end_with(*runs: str) -> Iterator[Callable[[], bool]]:
    """End every process that this one has started once any of the flow ``runs`` has ended, or is not there any more.

    Given is whether one has: for whoever waits and has started nothing.

    A night that was killed, cancelled or marked as crashed cannot end its stages on other machines itself; and a stage
    whose own run was given up must not go on beside the attempt that takes its place.
    """
    over, given_up = threading.Event(), threading.Event()
    watched = [UUID(run) for run in dict.fromkeys(runs)]
    watch = threading.Thread(target=_watch, args=(watched, over, given_up), name="end with the night", daemon=True)
    watch.start()
    try:
        yield given_up.is_set
    finally:
        over.set()
        watch.join(LOOK)


def _watch(runs: list[UUID], over: threading.Event, given_up: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not over.wait(LOOK):
            if any(_has_ended(client, run) for run in runs):
                given_up.set()
                while not over.wait(0.5):
                    _end_children()


def _has_ended(client: SyncPrefectClient, run: UUID) -> bool:
    try:
        state = client.read_flow_run(run).state
    except ObjectNotFound:
        return True
    except (httpx.TransportError, PrefectHTTPStatusError, OSError):  # a server that is away says nothing
        return False
    return state is not None and state.is_final()


def _end_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
