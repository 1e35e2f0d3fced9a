"""One decision of a person about the champion: written into the ledger, then the aliases follow."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from stillhouse.lineage.projection import State
from tasks.promotion import Move, carry_out

__all__ = ["promote"]


@flow(flow_run_name="{move.label}", validate_parameters=False, persist_result=False)
def promote(root: Path, move: Move) -> State:
    """Carry out ``move`` in the workspace ``root``.

    Returns:
        What the ledger adds up to now.

    Raises:
        RegistryError: the ledger is not whole, or another champion came in between.
    """
    return _written(root, move)


@task(name="write", cache_policy=NO_CACHE, persist_result=False)
def _written(root: Path, move: Move) -> State:
    return carry_out(root, move)
