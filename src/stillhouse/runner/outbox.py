"""What a stage has to say to its tracking run, left for the flow to deliver.

MLflow costs a process seconds of processor time before it has logged a figure (ADR 20). A night's flow has loaded it
anyway: it opens the run of each stage, names it to the stage's process, and delivers what that process left here.
A message lies here until it was delivered, so that a night that is cut off in between delivers it the next time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json, write_json

__all__ = ["STAGE_RUN", "Message", "Poster", "drop", "post", "waiting"]

#: Environment variable that names the tracking run of the stage that a process runs.
STAGE_RUN = "STILLHOUSE_STAGE_RUN"


@dataclass(frozen=True)
class Message:
    """What one attempt at a stage has to say."""

    run_id: str
    """The tracking run that it is for."""
    params: Mapping[str, Any]
    """The stage's settings, nested or flat."""
    series: Sequence[tuple[int, Mapping[str, float]]] = ()
    """(step, name → number) as the stage reported them."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the stage returned."""
    at: int = 0
    """When it was written, milliseconds since the epoch: delivered twice, a figure is the same point."""
    done: bool = False
    """Whether the stage's work came to its end."""

    def document(self) -> dict[str, Any]:
        """Return the message as plain data."""
        return asdict(self)


class Poster:
    """A stage's tracking run as its process sees it: what it is told goes into the outbox, first the settings."""

    def __init__(self, state: Path, stage: str, run_id: str, params: Mapping[str, Any]) -> None:
        self._state, self._stage = state, stage
        self._message = Message(run_id, params, at=_now())
        self.run_id = run_id
        """The tracking store's id of the run."""
        post(state, stage, self._message)

    def log(self, series: Iterable[tuple[int, Mapping[str, float]]], values: Mapping[str, Any]) -> None:
        """Leave all of a stage's figures: ``series`` as it reported them, ``values`` as it returned them.

        What is not finite is left out: neither JSON nor the tracking store takes it.
        """
        finite = [(step, {name: one for name, one in said.items() if math.isfinite(one)}) for step, said in series]
        said = replace(self._message, series=finite, values=dict(values), at=_now(), done=True)
        post(self._state, self._stage, said)


def _now() -> int:
    return int(time.time() * 1000)


def _place(state: Path, stage: str) -> Path:
    return state / "outbox" / f"{stage}.json"


def post(state: Path, stage: str, message: Message) -> None:
    """Leave ``message`` of ``stage``, in place of one that lies there. ``state``: the workspace's ``.stillhouse``."""
    path = _place(state, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, message.document())


def waiting(state: Path, stage: str) -> Message | None:
    """Return the message of ``stage`` that was not delivered yet, or ``None``."""
    path = _place(state, stage)
    return Message(**read_json(path)) if path.exists() else None


def drop(state: Path, stage: str) -> None:
    """Forget the message of ``stage``, once it was delivered."""
    _place(state, stage).unlink(missing_ok=True)
