"""What a resource means: slots, retries and time limits. Stages name a resource, never a policy."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

from stillhouse.errors import ParamsError, unknown_name

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

    slots: int
    """Stages at once on one machine."""
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
    # The heavy stages use every thread they are given: one at a time.
    "gpu": Policy(slots=1, retries=1, retry_seconds=2.0, limit_seconds=12 * 3600),
    "cpu": Policy(slots=max(1, os.cpu_count() or 1), retries=1, retry_seconds=2.0, limit_seconds=4 * 3600),
}

_SLOTS = {name: threading.BoundedSemaphore(policy.slots) for name, policy in _POLICIES.items()}


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


def slot(resource: str) -> threading.BoundedSemaphore:
    """Return the semaphore of a resource's slots in this process."""
    policy_of(resource)
    return _SLOTS[resource]
