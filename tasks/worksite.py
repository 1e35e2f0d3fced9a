"""The worker's side of a stage on a pool: a clone at the night's open tag, inputs in, outputs out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, chdir, contextmanager
from pathlib import Path
from typing import Any

import filelock

from stillhouse.errors import NightError, StillhouseError
from stillhouse.params.base import build, read_yaml
from stillhouse.params.model import ComputeSpec
from stillhouse.runner import outbox
from stillhouse.runner.lifeline import NIGHT_PID, TIME_LIMIT
from stillhouse.runner.outcome import no_room
from stillhouse.runner.stage import STATE
from tasks import remote, versions
from tasks.answering import LOOK
from tasks.clones import scratch_clone
from tasks.gpus import own_gpu
from tasks.graph import bring_up_to_date
from tasks.handover import entry_of, is_current, send, standing, take_inputs
from tasks.order import Done, Order, Step, code_digest
from tasks.search_paths import code_of, programs

__all__ = ["WORKSPACE", "bundle_name", "carry_out", "workspace_of_worker"]

#: Environment variable that names the folder that a worker works in.
WORKSPACE = "STILLHOUSE_WORKSPACE"

#: Folder of a worker's clone that holds one clone a night.
_SITES = "sites"

#: Nights whose clones a worker keeps beside tonight's: one that was revised or is caught up may come back.
_KEPT_SITES = 2

#: Seconds that an attempt waits for the end of the one before it, which looks every so often whether it was given up.
_PREDECESSOR = 6 * LOOK


def workspace_of_worker() -> Path:
    """Return the folder that this worker works in: STILLHOUSE_WORKSPACE, or the current one."""
    return Path(os.environ.get(WORKSPACE) or Path.cwd()).resolve()


def bundle_name(night: str, commit: str) -> str:
    """Return the name that a night's open tag has in DVC's remote."""
    return f"nights/{night}/open-{commit[:16]}.bundle"


def carry_out(order: Order, clone: Path, given_up: Callable[[], bool] = lambda: False) -> Iterator[Done]:
    """Bring the order's stages up to date in a clone of ``clone`` at the night's open tag; give the answer on each.

    Done again after a crash it goes on: what a stage had saved to resume from lies in that clone. The first known error
    is the last answer. Where a later stage turns out to take what it took when it last ran, the order ends before it:
    the night has its outputs, or orders it by itself. Where stages need a GPU, each has one to itself while it runs.

    Args:
        order: what the night asks for.
        clone: the worker's.
        given_up: whether the night, or this attempt, is over (`tasks.answering.end_with`).

    Raises:
        OSError: something could not be written or read, for another reason than a full disk.
        RuntimeError: a stage ended without a known error, an earlier attempt at it does not end, or it was given up.
    """
    site = None
    for step in order.steps:
        name = step.stage
        try:
            if site is None:
                _require_same(order, clone)
                site = _site(order, clone)
            with _alone(site, name), chdir(site):  # DVC names stages relative to where one stands
                take_inputs(site, step.inputs, name)
                began, ran, found = time.time(), False, standing(site, name)
                if found == "lacking":
                    if step is not order.steps[0]:
                        return
                    found = "current" if is_current(site, name) else "stale"
                # One that is up to date here was performed by an attempt whose night did not live to hear of it.
                if found == "stale":
                    with _gpu(order, site, given_up) as gpu:
                        began = time.time()
                        ran = bring_up_to_date(site, name, _environment(order, step, site) | gpu)
                ended = time.time()
                send(site, name)
            entry = entry_of(site, name)
        except (StillhouseError, OSError) as error:
            known = error if isinstance(error, StillhouseError) else no_room(name, site or clone, error)
            if known is None:
                raise
            said = _said(site, name) if site else None
            yield Done(name, False, None, str(known), type(known).__name__, message=said)
            return
        yield Done(name, ran, entry, began=began, ended=ended, message=_said(site, name))


def _said(site: Path, stage: str) -> dict[str, Any] | None:
    """Return what the stage has to say to its tracking run; it stays here until the stage runs again."""
    message = outbox.waiting(site / STATE, stage)
    return message.document() if message else None


def _require_same(order: Order, clone: Path) -> None:
    if order.code != code_digest():
        raise NightError(
            f"a worker must run the night's own code ({order.code[:12]}), found {code_digest()[:12]} in {clone.name}: "
            "bring its clone to the night's commit and start it again"
        )


def _site(order: Order, clone: Path) -> Path:
    place = clone / STATE / _SITES / order.night
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        if versions.tag_commit(clone, order.night, versions.OPEN) != order.commit:
            data = remote.get(clone, bundle_name(order.night, order.commit))
            if data is None:
                raise NightError(f"night {order.night} must have its code in DVC's remote, found no bundle of it there")
            if (found := versions.unbundle(clone, data, order.night, versions.OPEN)) != order.commit:
                raise NightError(
                    f"night {order.night} must be at commit {order.commit[:12]}, its bundle holds {found[:12]}"
                )
        if not place.exists():
            _let_go(place.parent)
        return scratch_clone(clone, order.commit, place)


@contextmanager
def _alone(site: Path, stage: str) -> Iterator[None]:
    """Keep other attempts at a stage out of its clone: one that was given up may still be ending its children."""
    lock = filelock.FileLock(site.with_name(f"{site.name}-{stage}.lock"), timeout=_PREDECESSOR)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RuntimeError(f"an earlier attempt at {stage} is at work here still, after {_PREDECESSOR:.0f} s") from None
    try:
        yield
    finally:
        lock.release()


def _let_go(sites: Path) -> None:
    """Remove the clones of nights before the last few: nothing in them is anywhere's only copy."""
    folders = sorted((one for one in sites.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
    for folder in folders[: -_KEPT_SITES or None]:
        # Whoever waits here holds a site of its own: one that is in use is let go another time.
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def _gpu(order: Order, site: Path, given_up: Callable[[], bool]) -> AbstractContextManager[dict[str, str]]:
    """Give a GPU to a stage that needs one. Slots of a pool count GPUs and name none; CUDA's first would be everyone's.

    Raises:
        ParamsError: the settings of the arithmetic are wrong.
    """
    if order.resource == "gpu":
        spec = build(ComputeSpec, read_yaml(site / "params.yaml").get("compute", {}), "params.yaml: compute")
        if spec.device != "cpu":
            return own_gpu(given_up)
    return contextlib.nullcontext({})


def _environment(order: Order, step: Step, site: Path) -> dict[str, str]:
    return {
        NIGHT_PID: str(os.getpid()),
        outbox.STAGE_RUN: step.run_id,
        TIME_LIMIT: str(order.limit_seconds),
        "PATH": programs(),
        "PYTHONPATH": code_of(site),
    }
