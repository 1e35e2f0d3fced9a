"""Entries of ``dvc.lock`` handed from one clone to another; the bytes they name go through DVC's remote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import NightError, one_line
from stillhouse.params.base import read_yaml
from tasks.graph import repository
from tasks.mending import keep
from tasks.remote import trouble
from tasks.versions import LOCK

__all__ = ["entry_of", "is_current", "send", "standing", "take_inputs", "take_outputs", "upstream_entries"]

#: Of a stage: up to date; but for its outputs, which are not here or are others; made of something else, or never.
Standing = Literal["current", "lacking", "stale"]

#: Seconds before a transfer that failed is tried again.
_WAITS = (1.0, 3.0)


def is_current(root: Path, name: str) -> bool:
    """Say whether the stage is up to date in the workspace, after bringing back outputs that are only missing."""
    from dvc.exceptions import DvcException
    from dvc.repo import lock_repo

    with repository(root) as repo, lock_repo(repo):
        found = _standing(repo, root, name)
        if found != "lacking":
            return found == "current"
        try:
            repo.checkout(targets=[name], force=True)
        except DvcException:  # the cache does not have them either
            return False
        return not repo.status(targets=[name])


def standing(root: Path, name: str) -> Standing:
    """Say how the stage stands in the workspace, as it is: nothing is brought back."""
    from dvc.repo import lock_repo

    with repository(root) as repo, lock_repo(repo):
        return _standing(repo, root, name)


def _standing(repo: Any, root: Path, name: str) -> Standing:
    differs = repo.status(targets=[name])
    if not differs:
        return "current"
    only_outputs = all(set(one) == {"changed outs"} for one in differs.get(name, [()]))
    return "lacking" if only_outputs and name in _stages(root) else "stale"


def entry_of(root: Path, name: str) -> dict[str, Any]:
    """Return the stage's entry in ``dvc.lock``.

    Raises:
        NightError: there is none.
    """
    return _entries(root, [name])[name]


def _entries(root: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of ``names``, read under DVC's lock: whoever brings up another stage rewrites it in place.

    Raises:
        NightError: one is not there.
    """
    from dvc.repo import lock_repo

    with repository(root) as repo, lock_repo(repo):
        stages = _stages(root)
    if missing := [name for name in names if name not in stages]:
        found = ", ".join(sorted(stages)) or "nothing"
        raise NightError(f"{LOCK} must hold the stage {missing[0]}, found {found}")
    return {name: dict(stages[name]) for name in names}


def _stages(root: Path) -> dict[str, Any]:
    path = root / LOCK
    return dict(read_yaml(path).get("stages", {})) if path.exists() else {}


def upstream_entries(root: Path, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return what the stages ``names`` gave: stage → its command and outputs, with hashes, without what it took."""
    return {name: {key: entry[key] for key in ("cmd", "outs")} for name, entry in _entries(root, names).items()}


def take_inputs(site: Path, entries: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Bring what the stage takes into the clone, from the cache or the remote.

    Args:
        site: the clone.
        entries: `upstream_entries` of the stages that it takes from.
        name: the stage.

    Raises:
        NightError: the remote lacks some of it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import lock_repo

    keep(site)
    with repository(site) as repo, lock_repo(repo):
        _write(repo, site, entries)
        repo._reset()  # DVC keeps the lock that it has read
        (stage,) = repo.stage.collect(name)
        versioned = {out.fs_path for one in repo.index.stages for out in one.outs}
        wanted = [dep.fs_path for dep in stage.deps if _below(dep.fs_path, versioned)]
        if not wanted:  # to DVC no target means all of them
            return
        try:
            _bring(repo, wanted)
        except (DvcException, OSError) as error:
            raise NightError(one_line(f"what stage {name} takes must be in DVC's remote, it said: {error}")) from error


def send(site: Path, name: str) -> None:
    """Push the outputs of the stage, or what a ``.dvc`` file tracks, to the remote.

    Raises:
        NightError: the remote cannot be written.
    """
    from dvc.exceptions import DvcException

    with repository(site) as repo:
        try:
            _again(lambda: repo.push(targets=[name]))
        except (DvcException, OSError) as error:
            said = trouble(site) or error
            raise NightError(one_line(f"what {name} made must go to DVC's remote, it said: {said}")) from error


def take_outputs(root: Path, name: str, entry: Mapping[str, Any], where: str) -> None:
    """Take up what another clone made: its entry into ``dvc.lock``, its outputs from the remote.

    The stage must then be up to date here: same command, code, settings and inputs. Where it is not, the entry that
    stood before stands again.

    Args:
        root: the workspace.
        name: the stage.
        entry: what the other clone's ``dvc.lock`` has of it.
        where: who made it, for errors.

    Raises:
        NightError: the outputs are not in the remote, or the entry is of other code, settings or inputs.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import lock_repo

    keep(root)
    with repository(root) as repo, lock_repo(repo):
        before = (root / LOCK).read_bytes() if (root / LOCK).exists() else None
        try:
            _write(repo, root, {name: entry})
            repo._reset()
            try:
                _bring(repo, [name])
            except (DvcException, OSError) as error:
                raise NightError(
                    one_line(f"what {where} made of stage {name} must be in DVC's remote, it said: {error}")
                ) from error
            if differs := repo.status(targets=[name]):
                raise NightError(
                    one_line(
                        f"what {where} made of stage {name} must be of this night's code and data, found {differs}"
                    )
                )
        except BaseException:
            _put_back(root, before)
            raise


def _bring(repo: Any, targets: list[str]) -> None:
    """Bring ``targets`` into the workspace: from the cache, which clones on one machine share, or else the remote.

    Asking the remote costs a second even where the cache has all of it.
    """
    from dvc.exceptions import DvcException

    try:
        repo.checkout(targets=targets, force=True)
    except DvcException:  # the cache lacks some of it
        _again(lambda: repo.pull(targets=targets, force=True))


def _again(transfer: Callable[[], Any]) -> None:
    """Do a transfer, up to three times: a network's hiccup must not end a night, and what is there stays there."""
    from dvc.exceptions import DvcException

    for wait in _WAITS:
        try:
            transfer()
            return
        except (DvcException, OSError):
            time.sleep(wait)
    transfer()


def _put_back(root: Path, before: bytes | None) -> None:
    from stillhouse.data.files import write_bytes

    if before is None:
        (root / LOCK).unlink(missing_ok=True)
    else:
        write_bytes(root / LOCK, before)


def _write(repo: Any, root: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Put entries into ``dvc.lock`` as DVC itself does, so that the file is the same to the byte."""
    from dvc.dvcfile import modify_yaml

    with modify_yaml(str(root / LOCK), fs=repo.fs) as data:
        data.setdefault("schema", "2.0")
        data.setdefault("stages", {})
        data["stages"].update({name: dict(entry) for name, entry in entries.items()})


def _below(path: str, outputs: set[str]) -> bool:
    return any(str(one) in outputs for one in (Path(path), *Path(path).parents))
