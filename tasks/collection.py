"""Frees what no registered version, entry of the ledger or kept night reaches, and nothing else.

Marks come first, and anything that cannot be read then refuses the whole. After that, what names content goes before
the content does: tags, entries of the run cache, lists of folders, files. A kill in between leaves content that
nothing names, which the next time frees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stillhouse.errors import NightError
from tasks import remote as remote_files
from tasks import versions
from tasks.backfill import clones, holding_backfills
from tasks.content import Contents
from tasks.graph import repository
from tasks.leftovers import leftovers, put_away, size_of
from tasks.mending import keep_or_forget, mend
from tasks.reachable import Kept, kept_nights, reached, reached_whole
from tasks.workspace import exclusive, exclusive_for_a_moment

__all__ = ["Collection", "Freed", "collect"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Freed:
    """What is freed in one place."""

    place: str
    """``cache``, ``remote``, ``run cache``, ``remote run cache``, ``workspace``, or ``bundles`` where there are any."""
    where: str
    count: int
    """Objects, entries, or files and folders."""
    bytes: int


@dataclass(frozen=True)
class Collection:
    """What was freed, or would be."""

    dry: bool
    nights: int
    """Nights that are kept."""
    objects: int
    """Pieces of content that are kept."""
    tags: Sequence[str]
    """Tags of abandoned nights that go."""
    freed: Sequence[Freed]
    notes: Sequence[str]
    """What was left as it is, and why."""


@dataclass(frozen=True)
class _Store:
    """One place that DVC keeps content in, and its run cache beside it."""

    name: str
    odb: Any
    runs: Any
    """Where the run cache's own folder is."""


def collect(
    root: Path, last: int, *, dry: bool = False, remote: bool | None = None, let_deleted_go: bool = False
) -> Collection:
    """Free what nothing reaches in the workspace, its cache and its remote.

    Args:
        root: the workspace.
        last: closed nights that are kept whatever names them.
        dry: say what would be freed, and change nothing.
        remote: free in the default remote too; ``None``: where it lies in the workspace, and is nobody else's.
        let_deleted_go: see `tasks.reachable.kept_nights`.

    Raises:
        NightError: a run or a backfill is at work, a kept night lacks its tag or the list of a folder's files, or the
            cache lies outside the workspace, where others may use it.
        RegistryError: the ledger is not whole, or a student's record is gone or altered.
    """
    with _held(root, dry) as repo:
        if not dry:
            mend(root)
            keep_or_forget(root)  # the copies that mend name nothing that goes now
        stores, notes = _stores(repo, root, remote)
        kept = kept_nights(root, last, let_deleted_go=let_deleted_go)
        content = Contents({store.name: store.odb for store in _every(repo)})
        used = reached(root, kept, content)
        for clone in clones(root):
            used |= reached_whole(clone, content)
        junk = {store.name: sorted(oid for oid in store.odb.all() if oid not in used) for store in stores}
        runs = _unreached_runs(stores, used)
        bundles = _unreached_bundles(root, kept) if any(store.name == "remote" for store in stores) else []
        left = list(
            leftovers(
                root,
                packages=kept.packages,
                statements={info.statement for info in kept.versions},
                keep_resume=kept.open is not None,
            )
        )
        told = _told(root, kept, stores, junk, runs, bundles, left, len(used), notes, dry=dry)
        if not dry:
            _sweep(root, kept, stores, runs, bundles, used, left)
        return told


@contextlib.contextmanager
def _held(root: Path, dry: bool) -> Iterator[Any]:
    """Give DVC's repository, with runs, backfills and DVC itself kept out; a dry one leaves no trace of itself."""
    from dvc.repo import lock_repo

    if not dry:
        with exclusive(root, frees=True), holding_backfills(root), repository(root) as repo, lock_repo(repo):
            yield repo
        return
    with exclusive_for_a_moment(root) as held:
        if not held:
            raise NightError("nothing is looked through while a run is at work here: wait for it to end")
        with repository(root) as repo:
            yield repo


def _every(repo: Any) -> list[_Store]:
    """Return the cache and, where there is one, the default remote."""
    from dvc.exceptions import DvcException

    found = [_Store("cache", repo.cache.local, repo.cache.legacy)]
    with contextlib.suppress(DvcException):  # no remote is set up, or one that keeps its own versions
        legacy = repo.cloud.get_remote_odb(command="gc", hash_name="md5-dos2unix")
        found.append(_Store("remote", repo.cloud.get_remote_odb(command="gc"), legacy))
    return found


def _stores(repo: Any, root: Path, remote: bool | None) -> tuple[list[_Store], list[str]]:
    """Return where content is freed, and what is said of a place where it is not.

    Raises:
        NightError: the cache lies outside the workspace.
    """
    cache, *others = _every(repo)
    if not _inside(root, cache):
        raise NightError(
            f"the cache must lie in the workspace to be freed, found it at {cache.odb.path}, where others may keep "
            "theirs (cache.dir): run gc in the workspace that it belongs to"
        )
    kept = [store for store in others if not (remote or (remote is None and _inside(root, store)))]
    why = "" if remote is False else ": others may keep theirs there (--remote frees there too)"
    notes = [f"left as it is: the remote at {store.odb.path}{why}" for store in kept]
    return [cache, *(store for store in others if store not in kept)], notes


def _inside(root: Path, store: _Store) -> bool:
    return store.odb.fs.protocol == "local" and Path(store.odb.path).resolve().is_relative_to(root.resolve())


def _unreached_runs(stores: Sequence[_Store], used: set[str]) -> dict[str, list[str]]:
    """Return store → paths of the entries of its run cache of which some output goes, or that cannot be read."""
    decided: dict[tuple[str, ...], bool] = {}  # an entry has one name in every store
    found: dict[str, list[str]] = {}
    for store in stores:
        fs, base = store.runs.fs, store.runs.fs.join(store.runs.path, "runs")
        found[store.name] = []
        for path in sorted(fs.find(base)) if fs.exists(base) else ():
            name = tuple(fs.parts(path)[-2:])
            if name not in decided:
                with fs.open(path, "rb") as file:
                    decided[name] = _reaches(file.read(), used)
            if not decided[name]:
                found[store.name].append(path)
    return found


def _unreached_bundles(root: Path, kept: Kept) -> list[str]:
    """Return the names, in the remote, of the code that workers were given for nights that are not kept."""
    mine = {*kept.nights, kept.open}
    return [name for name in remote_files.names(root, "nights") if name.split("/")[1] not in mine]


def _reaches(entry: bytes, used: set[str]) -> bool:
    try:
        outs = yaml.load(entry, Loader=_LOADER)["outs"]  # noqa: S506  # a safe loader, in C where there is one
        return all(out["md5"] in used for out in outs)
    except (yaml.YAMLError, KeyError, TypeError):
        return False


def _told(
    root: Path,
    kept: Kept,
    stores: Sequence[_Store],
    junk: dict[str, list[str]],
    runs: dict[str, list[str]],
    bundles: Sequence[str],
    left: Sequence[Path],
    objects: int,
    notes: Sequence[str],
    *,
    dry: bool,
) -> Collection:
    freed = []
    for store in stores:
        paths = [store.odb.oid_to_path(oid) for oid in junk[store.name]]
        freed.append(Freed(store.name, store.odb.path, len(paths), _bytes(store.odb.fs, paths)))
        name = "run cache" if store.name == "cache" else f"{store.name} run cache"
        entries = runs[store.name]
        freed.append(Freed(name, store.runs.path, len(entries), _bytes(store.runs.fs, entries)))
    if bundles:
        sizes = sum(remote_files.size(root, name) for name in bundles)
        freed.append(Freed("bundles", "the remote's stillhouse/nights", len(bundles), sizes))
    freed.append(Freed("workspace", str(root), len(left), sum(map(size_of, left))))
    tags = [f"night/{night}/{versions.OPEN}" for night in kept.abandoned]
    return Collection(dry, len(kept.nights), objects, tags, freed, notes)


def _bytes(fs: Any, paths: list[str]) -> int:
    return sum(int(info["size"] or 0) for info in fs.info(paths)) if paths else 0


def _sweep(
    root: Path,
    kept: Kept,
    stores: Sequence[_Store],
    runs: dict[str, list[str]],
    bundles: Sequence[str],
    used: set[str],
    left: Sequence[Path],
) -> None:
    """Remove, names before what they name."""
    from dvc_data.hashfile.db import get_index
    from dvc_data.hashfile.gc import gc
    from dvc_data.hashfile.hash_info import HashInfo

    for night, commit in kept.abandoned.items():
        versions.remove_tag(root, night, versions.OPEN, commit)
    for store in stores:
        if runs[store.name]:
            store.runs.fs.remove(runs[store.name])
        get_index(store.odb).clear()  # what a push takes to be there already
        gc(store.odb, [HashInfo("md5", oid) for oid in used])
    for name in bundles:
        remote_files.remove(root, name)
    put_away(root, left)
