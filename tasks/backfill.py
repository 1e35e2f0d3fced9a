"""Past nights in a clone of their own, in order, beside the live line and without touching it (ADR 0017).

A clone below ``.stillhouse/backfills`` has its own tags, its own tracking database and its own ledger; it shares the
cache and the remote, in which content has its hash for a name. A night that has closed there is not run again, so a
backfill that was killed goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import filelock
import yaml

from stillhouse.errors import NightError, ParamsError
from stillhouse.runner.lifeline import tie_to_parent
from stillhouse.runner.stage import STATE
from tasks import pointers, versions
from tasks.backfill_clone import is_backfill, make_backfill, source_of_past
from tasks.night import NIGHT_FILE
from tasks.search_paths import code_of, programs
from tasks.workspace import exclusive_for_a_moment

__all__ = [
    "Backfill",
    "Performed",
    "clones",
    "closed_at",
    "holding_backfills",
    "open_backfill",
    "own_environment",
    "perform",
]

_FOLDER = "backfills"
#: Held for a moment by whoever starts a backfill, and for as long as it takes by whoever must meet none.
_DOOR = "backfills.lock"
_PATIENCE = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: What the environment says about the live line.
_NOT_PASSED = re.compile(
    r"(MLFLOW|PREFECT)_.*|STILLHOUSE_(RUN_TOKEN|NIGHT_PID|STAGE_RUN|TIME_LIMIT|WORKSPACE|POOLS|STACK|ALERT_URLS)"
)


@dataclass(frozen=True)
class Backfill:
    """A backfill at work."""

    name: str
    clone: Path
    """Its workspace."""
    notes: Sequence[str]


@dataclass(frozen=True)
class Performed:
    """How one night of a backfill went."""

    as_of: datetime
    state: Literal["closed", "before", "nothing", "stopped"]
    """``before``: it had closed when the backfill was run before; ``nothing``: the source held nothing new."""
    code: int
    """The run's exit code."""
    seconds: float | None
    """``None``: it was not run now."""


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` without what would lead a backfill to the live line's tracking, server or pools."""
    return {name: value for name, value in environment.items() if not _NOT_PASSED.fullmatch(name)}


@contextlib.contextmanager
def open_backfill(root: Path, name: str, source: str | None = None) -> Iterator[Backfill]:
    """Hold the backfill of that name, and make its clone where there is none.

    Args:
        root: the live line's workspace.
        name: the backfill's.
        source: as for a run; ``None``: as params.yaml has it.

    Raises:
        ParamsError: the name or the source is impossible, or the source's rows have no times.
        NightError: a backfill of that name is at work, or was made for another source.
    """
    if not _NAME.fullmatch(name) or name.endswith((".new", ".lock")):
        raise ParamsError(f"a backfill's name must be letters, digits, dots, - and _, got {name!r} (--name)")
    if is_backfill(root):
        raise NightError(f"a backfill must be made from the live line, found {root.name} to be one itself (-C)")
    settings = source_of_past(root, source)
    place = root / STATE / _FOLDER / name
    place.parent.mkdir(parents=True, exist_ok=True)
    own = filelock.FileLock(f"{place}.lock", blocking=False)
    with contextlib.ExitStack() as held:
        with _door(root):
            try:
                held.enter_context(own)
            except filelock.Timeout:
                raise NightError(
                    f"one backfill of a name runs at a time, found {name} at work: wait for it to end, or give "
                    "another --name"
                ) from None
        yield Backfill(name, place.resolve(), make_backfill(root, place, settings))


@contextlib.contextmanager
def _door(root: Path) -> Iterator[None]:
    (root / STATE).mkdir(exist_ok=True)
    lock = filelock.FileLock(root / STATE / _DOOR, timeout=_PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise NightError("no backfill starts while `stillhouse gc` is at work here: wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def holding_backfills(root: Path) -> Iterator[None]:
    """Keep every backfill from starting and from going on.

    Raises:
        NightError: one is at work.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(_door(root))
        for lock in sorted((root / STATE / _FOLDER).glob("*.lock")):
            try:
                held.enter_context(filelock.FileLock(lock, blocking=False))
            except filelock.Timeout:
                raise NightError(
                    f"nothing is freed while a backfill is at work, found {lock.stem}: wait for it to end"
                ) from None
        for clone in clones(root):
            if not held.enter_context(exclusive_for_a_moment(clone)):
                raise NightError(
                    f"nothing is freed while a night runs in a backfill, found one in {clone.name}: wait for it to end"
                )
        yield


def clones(root: Path) -> list[Path]:
    """Return the workspaces of every backfill that was made and not removed."""
    folder = root / STATE / _FOLDER
    return sorted(place for place in folder.glob("*") if is_backfill(place) and place.suffix != ".new")


def perform(
    backfill: Backfill, nights: Sequence[datetime], told: Callable[[datetime], None], *, keep_going: bool = False
) -> Iterator[Performed]:
    """Run the nights one after the other, each in a process of its own that ends with this one.

    Args:
        backfill: the backfill, held.
        nights: the times, rising.
        told: called with a night's time before it runs.
        keep_going: go on after a night that was stopped by a known error, as the live line's next night would.

    Yields:
        How each night went, the last one first that did not end well, unless ``keep_going``.
    """
    for as_of in nights:
        if (done := _earlier(backfill.clone, as_of)) is not None:
            yield done
            continue
        told(as_of)
        started = time.monotonic()
        code = _run(backfill.clone, as_of)
        seconds = time.monotonic() - started
        if code:
            yield Performed(as_of, "stopped", code, seconds)
            if keep_going and code == NightError.exit_code:
                continue
            return
        state: Literal["closed", "nothing"] = "closed" if as_of in closed_at(backfill.clone) else "nothing"
        yield Performed(as_of, state, code, seconds)


def _earlier(clone: Path, as_of: datetime) -> Performed | None:
    """Say how a night went that was run before; ``None``: it is to be run."""
    closed = closed_at(clone)
    if as_of in closed:
        return Performed(as_of, "before", 0, None)
    if closed and as_of < max(closed):  # a later one has closed: this one was stopped, or had nothing new
        return Performed(as_of, "stopped" if as_of in _at(clone, versions.OPEN) else "nothing", 0, None)
    return None


def closed_at(clone: Path) -> dict[datetime, str]:
    """Return the time of each closed night → its id; of several revisions the last."""
    return _at(clone, versions.CLOSED)


def _at(clone: Path, state: str) -> dict[datetime, str]:
    ids = versions.nights(clone, state)
    tags = pointers.tags(clone)
    names = {night: f"{tags[f'night/{night}/{state}']}:./{NIGHT_FILE}" for night in ids}
    read = pointers.read_each(clone, names.values())
    return {datetime.fromisoformat(yaml.safe_load(read[names[night]] or b"")["as_of"]): night for night in ids}


def _run(clone: Path, as_of: datetime) -> int:
    """Run one night by the clone's own code; its table goes to the clone's log, its errors to where ours go."""
    environment = own_environment(os.environ)
    environment |= {"PATH": programs(environment), "PYTHONPATH": code_of(clone)}
    with (clone / STATE / "backfill.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "stillhouse", "run", "--as-of", as_of.isoformat()],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            preexec_fn=tie_to_parent,  # noqa: PLW1509  # this process has one thread
        )
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child heard it too, and ends its own stages
            child.wait()
            raise
