"""What stands between a night and its stages on workers: the answer on the worker's run, and an end together."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.order import Done

__all__ = ["answer", "answer_of", "end_with"]

#: Type of the artifact that holds an answer: hashes, names and times, no data.
_TYPE = "stage-answer"

#: Seconds between two looks at the night's run.
_LOOK = 10.0


def answer(done: Done, run: str) -> None:
    """Write how a stage went on the worker's flow run ``run``."""
    with get_client(sync_client=True) as client:
        client.create_artifact(ArtifactCreate(type=_TYPE, data=json.dumps(done.document()), flow_run_id=UUID(run)))


def answer_of(client: SyncPrefectClient, run: UUID) -> Done | None:
    """Return the answer on the worker's flow run ``run``, or ``None`` where it left none."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), type=ArtifactFilterType(any_=[_TYPE]))
    found = client.read_artifacts(artifact_filter=wanted)
    return Done(**json.loads(str(found[0].data))) if found else None


@contextlib.contextmanager
def end_with(parent: str) -> Iterator[None]:
    """End every process that this one has started once the flow run ``parent`` has ended, or is not there any more.

    A night that was killed, cancelled or marked as crashed cannot end its stages on other machines itself.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(UUID(parent), over), name="end with the night", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join(_LOOK)


def _watch(parent: UUID, over: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not over.wait(_LOOK):
            if _has_ended(client, parent):
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
