"""What a night asks of a worker, and what comes back: paths, hashes and names; never data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stillhouse.runner.closure import package_root

__all__ = ["Done", "Order", "Step", "code_digest"]


@dataclass(frozen=True)
class Step:
    """One stage of an order."""

    stage: str
    inputs: Mapping[str, Mapping[str, Any]]
    """Stage that it takes from, unless the order names that too → its command and outputs as ``dvc.lock`` has them."""
    run_id: str
    """The tracking run of this attempt at the stage."""


@dataclass(frozen=True)
class Order:
    """A stage of one night, and those that follow it on the same pool, to be brought up to date somewhere else."""

    night: str
    commit: str
    """Of the night's open tag: the code, the settings, ``night.yaml``, ``previous.dvc``."""
    steps: tuple[Step, ...]
    """What to do, in this order."""
    code: str
    """`code_digest` of the night's process."""
    parents: tuple[str, ...]
    """The flow runs that the stages are a part of: they end when any of these has."""
    limit_seconds: int
    """A stage is killed when it runs longer."""
    resource: str = "cpu"
    """What each of them needs (`tasks.graph.Stage`): the pool that it goes to."""

    @property
    def name(self) -> str:
        """What the worker's flow run is called."""
        return f"{self.night}: {', '.join(step.stage for step in self.steps)}"

    def document(self) -> dict[str, Any]:
        """Return the order as plain data, in which nothing depends on the order of keys: PostgreSQL keeps none."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Order:
        """Return the order of which `document` made plain data."""
        return cls(**{**document, "steps": tuple(Step(**step) for step in document["steps"])})


@dataclass(frozen=True)
class Done:
    """How one stage of an order went."""

    stage: str
    ran: bool
    """``False``: the worker's clone had the outputs already."""
    entry: Mapping[str, Any] | None
    """The stage's entry for ``dvc.lock``; ``None``: it failed."""
    error: str | None = None
    """A known error's line."""
    known: str | None = None
    """Its class in `stillhouse.errors`."""
    began: float = 0.0
    """When the stage's own work began, seconds since the epoch by the worker's clock."""
    ended: float = 0.0
    message: Mapping[str, Any] | None = None
    """What the stage has to say to its tracking run, a `stillhouse.runner.outbox.Message` as plain data."""

    def document(self) -> dict[str, Any]:
        """Return the answer as plain data."""
        return asdict(self)


@cache
def code_digest() -> str:
    """Return the SHA-256 of the code that this process runs: flows, tasks and library."""
    beside = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for folder in (beside / "flows", beside / "tasks", package_root() / "stillhouse"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
