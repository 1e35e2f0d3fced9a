"""What a workspace must keep: the nights that something names, and every piece of content that they reach.

Marks alone: nothing here changes or removes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stillhouse.errors import NightError
from stillhouse.lineage import statement
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.projection import state
from stillhouse.runner.stage import STATE
from stillhouse.tracking.registry import STUDENT, TEACHER, VersionInfo, statement_of, versions
from stillhouse.tracking.settings import tracking_of
from tasks import pointers
from tasks.champion import ledger_entries
from tasks.content import Contents
from tasks.night import NIGHT_FILE, read_night, unclosed
from tasks.records import record_bytes, records
from tasks.versions import CLOSED, LOCK, OPEN
from tasks.versions import nights as tagged

__all__ = ["Kept", "kept_nights", "line_of", "named_nights", "reached", "reached_whole"]

#: Why the night in ``night.yaml`` is kept where nothing else names it.
_OWN = "the workspace's own"
#: Entries that say what was, or may yet be, in production.
_SERVED = ("promoted", "rolled_back", "awaiting")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Kept:
    """What of a workspace stays."""

    nights: Mapping[str, str]
    """Night → why it is kept."""
    abandoned: Mapping[str, str]
    """Night that was opened, never closed, and that nothing names → commit of its open tag."""
    open: str | None
    """The night in ``night.yaml`` that has not closed."""
    versions: Sequence[VersionInfo]
    """Every registered student and teacher."""
    packages: frozenset[str]
    """SHA-256 of the packages that the ledger speaks of now: champion, challenger, previous, awaiting."""
    commits: Mapping[str, str] = field(default_factory=dict)
    """Commit → the tag that names it, of every tag of a kept night that DVC's pointers are read from."""


def kept_nights(root: Path, last: int, *, let_deleted_go: bool = False) -> Kept:
    """Return the nights that are kept: those that a version, the ledger or a kept night names, and the last ones.

    Args:
        root: the workspace.
        last: closed nights that are kept whatever names them.
        let_deleted_go: an entry of the ledger keeps nothing where its version was deleted from the registry and never
            was, nor may yet be, in production.

    Raises:
        RegistryError: the ledger is not whole.
        NightError: a night that must be kept has lost its tag.
    """
    counted = ledger_entries(root)
    known = _registered(root)
    commits = pointers.tags(root)
    closed, opened = tagged(root, CLOSED), tagged(root, OPEN)
    current, here = unclosed(root), read_night(root)
    found = named_nights(known, [one.entry for one in counted], let_deleted_go=let_deleted_go)
    found |= {night: f"one of the last {last} that closed" for night in closed[-last:] if night not in found}
    if here is not None:
        found.setdefault(here.id, _OWN)
    documents = _documents(root, {name: commits[name] for name in _tags_of(closed, opened)})
    for night in list(found):
        for step in line_of(night, documents):
            found.setdefault(step, f"what night {night} came from")
    now = state(counted)
    waited = {now.champion, now.challenger, now.previous, now.awaiting}
    return Kept(
        nights=found,
        abandoned={night: commits[f"night/{night}/{OPEN}"] for night in opened if night not in {*closed, *found}},
        open=current.id if current else None,
        versions=known,
        packages=frozenset(info.package for info in known if info.model == STUDENT and info.version in waited),
        commits=_commits(found, commits),
    )


def _commits(nights: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """Return commit → tag of each kept night: as it closed, or as it was opened where it has not."""
    found: dict[str, str] = {}
    for night, why in nights.items():
        own = next((tag for state in (CLOSED, OPEN) if (tag := f"night/{night}/{state}") in tags), None)
        if own is not None:
            found[tags[own]] = own
        elif why != _OWN:  # one that was killed while it opened has none yet
            raise NightError(
                f"night {night} must have its tag, for it is {why}, found neither night/{night}/closed nor /open: "
                "bring the tag back; nothing is freed until then"
            )
    return found


def _registered(root: Path) -> list[VersionInfo]:
    """Return every version of every registered model; looking makes no database."""
    database = tracking_of(root).database
    there = database is None or database.exists()
    return [info for model in (STUDENT, TEACHER) for info in versions(root, model=model)] if there else []


def named_nights(
    known: Iterable[VersionInfo], entries: Sequence[Entry], *, let_deleted_go: bool = False
) -> dict[str, str]:
    """Return night → what names it, of the nights that a registered version or an entry of the ledger names."""
    there = {(info.model, info.version): info for info in known}
    served = {(entry.model, entry.version) for entry in entries if entry.kind in _SERVED}
    found = {info.night: f"that of registered {info.model} {info.version}" for info in known}
    for entry in entries:
        gone = (entry.model, entry.version) not in there and (entry.model, entry.version) not in served
        if entry.night is not None and not (let_deleted_go and gone):
            found.setdefault(entry.night, f"named by the ledger ({entry.key})")
    return found


def line_of(night: str, documents: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Give the nights that ``night`` came from, nearest first: those that an audit of its students walks back over.

    One step in any case, further while weights were handed on; and the night that it performed again.

    Args:
        night: a night's id.
        documents: night → its ``night.yaml``.
    """
    own = documents.get(night, {})
    if own.get("revises"):
        yield own["revises"]
    cold, step = own.get("cold", True), own.get("previous")
    while step is not None:
        yield step
        before = documents.get(step, {})
        if cold or before.get("cold", True):
            return
        step = before.get("previous")


def _tags_of(closed: Sequence[str], opened: Sequence[str]) -> list[str]:
    done = set(closed)
    return [f"night/{night}/{CLOSED}" for night in closed] + [
        f"night/{night}/{OPEN}" for night in opened if night not in done
    ]


def _documents(root: Path, commits: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return night → ``night.yaml`` as its tag holds it."""
    read = pointers.read_each(root, {f"{commit}:./{NIGHT_FILE}" for commit in commits.values()})
    found = {}
    for tag, commit in commits.items():
        data = read[f"{commit}:./{NIGHT_FILE}"]
        values = yaml.load(data, Loader=_LOADER) if data else None  # noqa: S506  # a safe loader, in C where there is one
        if not isinstance(values, dict):
            raise NightError(f"{tag} must hold {NIGHT_FILE}, found none: what it came from cannot be said")
        found[tag.split("/")[1]] = values
    return found


def reached(root: Path, kept: Kept, store: Contents) -> set[str]:
    """Return the MD5 of everything that the kept nights, the registered students and the workspace reach.

    Args:
        root: the workspace.
        kept: what `kept_nights` found there.
        store: the workspace's cache and remote, which hold the lists of folders.

    Raises:
        NightError: the list of a folder's files is gone: what it reaches cannot be said.
        RegistryError: a student's record is gone or altered.
    """
    tops = _of_nights(root, kept.commits) | _of_records(root, kept.versions) | pointers.in_tree(root)
    return _expanded(store, tops, strict=True) | _expanded(store, pointers.in_refs(root), strict=False)


def _of_nights(root: Path, commits: Mapping[str, str]) -> dict[str, str]:
    closed = [commit for commit, tag in commits.items() if tag.endswith(CLOSED)]
    there = pointers.holding(root, closed, LOCK)
    for commit in closed:
        if commit not in there:
            tag = commits[commit]
            raise NightError(f"{tag} must hold {LOCK}, found none: what the night reaches cannot be said")
    # The lock in an open tag is of the night before, or of one that was left behind.
    opened = [commit for commit, tag in commits.items() if not tag.endswith(CLOSED)]
    return pointers.in_commits(root, closed) | pointers.in_commits(root, opened, lock=False)


def _of_records(root: Path, known: Sequence[VersionInfo]) -> dict[str, str]:
    """Return what the versions' records name: a night that was resumed may have closed with something else."""
    found: dict[str, str] = {}
    for info, data in zip(known, records(root, known, _record), strict=True):
        predicate = statement.read(data, f"lineage.json of version {info.version}")["predicate"]
        for one in [*predicate["links"].values(), *(out for stage in predicate["stages"] for out in stage["outputs"])]:
            found[one["md5"]] = one["path"]
    return found


def _record(root: Path, info: VersionInfo) -> bytes:
    """Return the record of a version, from the copy at hand where there is one; looking makes none."""
    at_hand = (root / STATE / "records" / f"{info.statement}.json").exists()
    return record_bytes(root, info) if at_hand else statement_of(root, info)


def _expanded(store: Contents, tops: Mapping[str, str], *, strict: bool) -> set[str]:
    found = set(tops)
    for md5, path in tops.items():
        if not md5.endswith(".dir"):
            continue
        data = store.read(md5)
        if data is not None:
            found.update(entry["md5"] for entry in json.loads(data))
        elif strict:
            raise NightError(
                f"the list of files of {path} ({md5}) must be there to know what it reaches, found it neither whole in "
                "the cache nor in the remote: bring it back from a backup; nothing is freed until then"
            )
    return found


def reached_whole(clone: Path, store: Contents) -> set[str]:
    """Return the MD5 of everything that a clone's nights and its work tree name: it stays until its folder goes.

    Args:
        clone: a workspace that shares the cache and the remote.
        store: the cache and the remote.

    Raises:
        NightError: as `reached`.
    """
    tops = pointers.in_commits(clone, pointers.tags(clone).values()) | pointers.in_tree(clone)
    return _expanded(store, tops, strict=True)
