"""What a resource means: slots, retries and time limits. Stages name a resource, never a policy."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillhouse.errors import ParamsError, unknown_name
from stillhouse.params.base import build
from stillhouse.params.model import ComputeSpec

__all__ = ["HEARTBEAT", "ON_POOLS", "START_SECONDS", "Policy", "on_pools", "policy_of", "slot"]

#: What starts a flow of ours is told so: a run that misses three of these counts as dead (deploy/automations.yaml).
HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}

#: Environment variable that sends each stage to the pool of its resource.
ON_POOLS = "STILLHOUSE_POOLS"

#: Environment variable for ``start_seconds``: a pod that waits for a node or an image begins later than a process.
START_SECONDS = "STILLHOUSE_START_SECONDS"


@dataclass(frozen=True)
class Policy:
    """How stages that need one resource are run."""

    retries: int
    """Times that a crashed stage is started again; a known error never is."""
    retry_seconds: float
    """Wait before each of these starts."""
    limit_seconds: int
    """A stage that runs longer is killed."""
    start_seconds: float = 120.0
    """On a pool: a stage that a worker has taken and not begun after this long has lost it (`START_SECONDS`)."""
    pickup_seconds: float = 300.0
    """On a pool: a stage that waits this long, with no worker there, is given up."""


_POLICIES = {
    "gpu": Policy(retries=1, retry_seconds=2.0, limit_seconds=12 * 3600),
    "cpu": Policy(retries=1, retry_seconds=2.0, limit_seconds=4 * 3600),
}

#: One of these is there where a stage's arithmetic can go to a GPU: NVIDIA's, AMD's, that of a Windows host.
_GPU = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))

_slots: dict[tuple[str, int], threading.BoundedSemaphore] = {}


def on_pools() -> bool:
    """Say whether stages go to the pools' workers, or run beside the flow."""
    return os.environ.get(ON_POOLS, "").strip().lower() in ("1", "true", "yes")


def policy_of(resource: str) -> Policy:
    """Return the policy of a resource.

    Raises:
        ParamsError: no such resource is known.
    """
    if resource not in _POLICIES:
        raise ParamsError(unknown_name("resource", resource, _POLICIES, "dvc.yaml: meta.resource"))
    said = os.environ.get(START_SECONDS)
    if not said:
        return _POLICIES[resource]
    if not said.isdecimal() or int(said) < 1:
        raise ParamsError(f"{START_SECONDS} must be a whole number of seconds, 1 or more, got {said!r} (environment)")
    return replace(_POLICIES[resource], start_seconds=float(said))


def slot(resource: str, compute: Mapping[str, Any]) -> threading.BoundedSemaphore:
    """Return the semaphore of a resource's slots in this process.

    A CPU stage has a core. A GPU stage has the GPU to itself; where there is none, the threads that it is given, so
    that students are trained side by side as far as the cores go.

    Args:
        resource: ``cpu`` or ``gpu``.
        compute: the section ``compute`` of params.yaml.

    Raises:
        ParamsError: no such resource is known, or the section is wrong.
    """
    policy_of(resource)
    count = max(1, os.cpu_count() or 1)
    if resource == "gpu":
        spec = build(ComputeSpec, compute, "params.yaml: compute")
        on_gpu = spec.device == "cuda" or (spec.device == "auto" and any(path.exists() for path in _GPU))
        count = 1 if on_gpu else max(1, count // spec.threads)
    return _slots.setdefault((resource, count), threading.BoundedSemaphore(count))  # in one step, whoever asks too
