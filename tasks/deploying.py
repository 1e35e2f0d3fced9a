"""What a Prefect server must know of Stillhouse: the pools, the deployments of prefect.yaml, the automations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from stillhouse.errors import NightError, ParamsError, one_line
from tasks.automations import apply
from tasks.gpus import gpus_here
from tasks.search_paths import code_of

__all__ = ["GPUS", "POOLS", "deploy"]

#: The pools. Only ``gpu`` has a limit, its slots.
POOLS = ("night", "cpu", "gpu")

#: Environment variable with the number of GPUs that the pool ``gpu`` shares out; at first it is this machine's.
GPUS = "STILLHOUSE_GPUS"


def deploy(root: Path) -> list[str]:
    """Make or bring up to date the pools, the deployments and the automations; done again, nothing changes.

    Args:
        root: the workspace, whose prefect.yaml and deploy/automations.yaml are read.

    Returns:
        A line on each thing that there is now.

    Raises:
        ParamsError: STILLHOUSE_GPUS is no number.
        NightError: the server does not answer, or refuses.
    """
    said = _gpus_said()
    slots = {pool: _pool(pool, said if pool == "gpu" else None) for pool in POOLS}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": code_of(root),
            "PREFECT_CLI_COLORS": "false",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NightError(one_line(f"prefect.yaml must be deployed, Prefect said: {done.stderr or done.stdout}"))
    automations = apply(root)
    return [
        *(f"pool {pool}" + (f", {limit} at once" if limit else "") for pool, limit in slots.items()),
        *(f"deployment {name}" for name in _deployments()),
        *(f"automation {name}" for name in automations),
    ]


def _pool(name: str, limit: int | None) -> int | None:
    """Make the pool, or give one that is there the ``limit`` that was asked for; return its limit."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            limit = _at_first(name, limit)
            client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=limit))
            return limit
        if limit is None or found.concurrency_limit == limit:  # what a person has set since stays
            return found.concurrency_limit
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
        return limit


def _at_first(name: str, said: int | None) -> int | None:
    """Return the limit of a pool that is made now: what was said, or else a slot for each GPU of this machine."""
    return said or (_gpus_here() if name == "gpu" else None)


def _deployments() -> list[str]:
    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        return sorted(f"{flows[one.flow_id]}/{one.name}" for one in client.read_deployments())


def _gpus_said() -> int | None:
    """Return the slots of the pool ``gpu`` that the environment asks for, if it does."""
    said = os.environ.get(GPUS)
    if not said:
        return None
    if not said.isdecimal() or int(said) < 1:
        raise ParamsError(f"{GPUS} must be a number of GPUs, 1 or more, got {said!r} (environment)")
    return int(said)


def _gpus_here() -> int:
    """Return how many GPUs this machine's workers may use, one at least."""
    try:
        return max(1, len(gpus_here()))
    except subprocess.TimeoutExpired:
        return 1
