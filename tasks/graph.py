"""The one graph: DVC's stages, read and brought up to date one at a time."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json
from stillhouse.errors import NightError, StillhouseError, one_line
from stillhouse.runner import outcome
from stillhouse.runner.stage import STATE
from tasks.lockfile import quicken
from tasks.mending import keep, mend_readers

__all__ = [
    "Stage",
    "bring_up_to_date",
    "changed",
    "copy_at",
    "followers",
    "hush",
    "push",
    "read_graph",
    "repository",
    "restore_tracked",
    "spoiled",
    "stage_runs",
    "track",
]


@dataclass(frozen=True)
class Stage:
    """One stage of the graph."""

    name: str
    upstream: tuple[str, ...]
    """Stages whose outputs it takes."""
    resource: str
    """What it needs: ``cpu`` or ``gpu`` (``meta.resource`` in dvc.yaml)."""
    outputs: tuple[str, ...]
    """Its outputs' paths below the workspace."""


@contextmanager
def repository(root: Path, **settings: Any) -> Iterator[Any]:
    """Open DVC's repository of the workspace.

    Raises:
        NightError: DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    quicken()
    try:
        with Repo(str(root), _wait_for_lock=True, **settings) as repo:
            mend_readers(repo)
            yield repo
    except StillhouseError:
        raise
    except DvcException as error:
        raise NightError(one_line(f"DVC must be able to work in {root.name}, it said: {error}")) from error


def hush() -> None:
    """Keep DVC's own messages to warnings; importing it sets them louder."""
    import dvc.logger  # sets its level as it is imported
    import dvc.rwlock

    logging.getLogger("dvc").setLevel(logging.WARNING)
    # That a killed run's locks were taken away is nothing to warn of: the run that comes after it sees to what it left.
    dvc.rwlock.logger.setLevel(logging.ERROR)


def read_graph(root: Path) -> list[Stage]:
    """Return the stages of ``dvc.yaml`` in an order in which each follows what it takes.

    Raises:
        NightError: the graph cannot be read.
    """
    import networkx

    with repository(root) as repo:
        graph = repo.index.graph
        order = list(networkx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.addressing))
        return [_stage(root, stage, graph) for stage in order if not stage.is_data_source]


def _stage(root: Path, stage: Any, graph: Any) -> Stage:
    upstream = tuple(sorted(other.addressing for other in graph.successors(stage) if not other.is_data_source))
    outputs = tuple(Path(out.fs_path).relative_to(root).as_posix() for out in stage.outs)
    return Stage(stage.addressing, upstream, (stage.meta or {}).get("resource", "cpu"), outputs)


def followers(stage: Stage, graph: Sequence[Stage]) -> list[Stage]:
    """Return the stages that whoever performs ``stage`` can go on to, in order.

    Each needs the same resource and takes from the one before it, beside what is up to date when ``stage`` begins. Of
    several it is the first; the others may be performed beside it.

    Args:
        stage: the stage.
        graph: `read_graph`.
    """
    of = {one.name: one for one in graph}
    known, open_ = {stage.name}, list(stage.upstream)
    while open_:
        if (name := open_.pop()) not in known:
            known.add(name)
            open_ += of[name].upstream
    line = [stage]
    while True:
        last = line[-1].name
        possible = [one for one in graph if one.name not in known and last in one.upstream]
        ready = [one for one in possible if one.resource == stage.resource and set(one.upstream) <= known]
        if not ready:
            return line[1:]
        line.append(ready[0])
        known.add(ready[0].name)


def stage_runs(root: Path) -> dict[str, str]:
    """Return stage → the tracking run that made its outputs, from ``runs/``."""
    files = {stage.name: root / "runs" / f"{stage.name.replace('@', '/')}.json" for stage in read_graph(root)}
    return {name: read_json(file)["run_id"] for name, file in files.items() if file.exists()}


def bring_up_to_date(root: Path, name: str, environment: Mapping[str, str]) -> bool:
    """Reproduce one stage, trusting that what it takes is up to date.

    Args:
        root: the workspace.
        name: the stage as in ``dvc.yaml``.
        environment: variables for the stage's process.

    Returns:
        Whether the stage ran; ``False`` where its outputs were reused.

    Raises:
        StillhouseError: the stage ended with a known error, which is raised again here.
        RuntimeError: the stage ended in any other way.
    """
    from dvc.exceptions import ReproductionError

    state = root / STATE
    outcome.clear(state, name)
    keep(root)
    with repository(root) as repo:
        try:
            repo.reproduce(name, single_item=True, run_env=dict(environment))
        except ReproductionError as error:
            outcome.raise_if_failed(state, name)
            if full := outcome.no_room(name, root, error) or outcome.no_room(name, root, outcome.trial_write(state)):
                raise full from error
            note = outcome.outcome(state, name) or {}
            raise RuntimeError(f"stage {name} failed: {note.get('error') or error.__cause__ or error}") from error
    return outcome.outcome(state, name) is not None


def changed(root: Path) -> dict[str, Any]:
    """Return what ``dvc status`` would show: stage → what differs; empty when all is up to date."""
    with repository(root) as repo:
        return dict(repo.status())


def spoiled(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the outputs that are not what their stages made, of what `changed` found; none where other things differ.

    >>> spoiled({"make": [{"changed outs": {"a": "modified"}}], "use": [{"changed deps": {"a": "modified"}}]})
    ('a',)
    >>> spoiled({"make": [{"changed outs": {"a": "modified"}}, {"changed deps": {"code": "modified"}}]})
    ()
    """
    made: set[str] = set()
    rest: set[str] = set()
    for what in changes.values():
        for one in what:
            if not isinstance(one, Mapping) or not one.keys() <= {"changed outs", "changed deps"}:
                return ()
            made.update(one.get("changed outs", ()))
            rest.update(one.get("changed deps", ()))
    return tuple(sorted(made)) if rest <= made else ()


def track(root: Path, path: str) -> None:
    """Put ``path`` (a folder outside the graph) under DVC, as ``dvc add`` does."""
    keep(root)
    with repository(root) as repo:
        repo.add([str(root / path)])


def restore_tracked(root: Path, path: str) -> None:
    """Bring ``path`` to the version in its ``.dvc`` file, from the cache or the remote."""
    with repository(root) as repo:
        repo.pull(targets=[f"{path}.dvc"], force=True)


def copy_at(root: Path, commit: str, path: str, target: Path) -> bool:
    """Copy ``path``, as it was versioned at ``commit``, to ``target``.

    Returns:
        Whether ``commit`` knows ``path``; where it does not, nothing is written.

    Raises:
        NightError: its content is neither in the cache nor in the remote.
    """
    from dvc_data.index import DataIndexDirError

    with repository(root, rev=commit) as repo:
        files = repo.dvcfs
        try:
            if not files.exists(path):
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            files.get(path, str(target), recursive=files.isdir(path))
        except (OSError, DataIndexDirError) as error:
            raise NightError(
                one_line(f"{path} of commit {commit[:12]} must be in DVC's cache or remote, found neither: {error}")
            ) from error
    return True


def push(root: Path) -> int:
    """Push what the workspace's graph refers to, run cache included, to the default remote; return the files sent."""
    with repository(root) as repo:
        return int(repo.push(run_cache=True))
