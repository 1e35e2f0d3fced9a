"""What a resource means: slots, retries and time limits. Stages name a resource, never a policy."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from stillhouse.errors import ParamsError, unknown_name

__all__ = ["ON_POOLS", "Policy", "on_pools", "policy_of", "slot"]

#: Environment variable that sends each stage to the pool of its resource.
ON_POOLS = "STILLHOUSE_POOLS"


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
    """On a pool: a stage that a worker has taken and not begun after this long has lost its worker."""
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
    return _POLICIES[resource]


def slot(resource: str) -> threading.BoundedSemaphore:
    """Return the semaphore of a resource's slots in this process."""
    policy_of(resource)
    return _SLOTS[resource]
