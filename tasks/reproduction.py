"""A student made again: its night's code and inputs in a scratch clone, every stage run, every output compared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillhouse.data.distance import how_far
from stillhouse.data.files import md5_file, md5_of_files
from stillhouse.errors import NightError, one_line
from stillhouse.lineage.record import BY_NATURE
from stillhouse.runner.outbox import STAGE_RUN
from stillhouse.runner.stage import STATE
from stillhouse.tracking.registry import version_of
from tasks import versions
from tasks.content import Contents, contents
from tasks.graph import read_graph, repository
from tasks.records import record_of_version
from tasks.search_paths import code_of, programs

__all__ = ["Output", "Reproduction", "reproduce"]

#: The stage whose work is not done again: its source lies outside; what it made is restored.
_SOURCE = "ingest"


@dataclass(frozen=True)
class Output:
    """One output of a stage, made again."""

    stage: str
    path: str
    state: Literal["identical", "differs", "by nature"]
    """``by nature``: it holds ids or timings, and nothing depends on it."""
    says: str
    """How far it is from the recorded one."""


@dataclass(frozen=True)
class Reproduction:
    """A student's night, performed again."""

    version: int
    night: str
    outputs: Sequence[Output]

    @property
    def identical(self) -> bool:
        """Whether every output that can be is byte-identical."""
        return all(output.state != "differs" for output in self.outputs)


def reproduce(root: Path, version: int, told: Callable[[str], None], keep: Path | None = None) -> Reproduction:
    """Make ``version`` again from the code and the data of its night, and compare.

    Args:
        root: the workspace.
        version: a registered version.
        told: called with each stage's name before it runs.
        keep: a folder to make the scratch clone in, which stays; ``None``: it goes afterwards.

    Raises:
        NightError: the night has not closed, its inputs are neither in the cache nor in the remote, or a stage fails.
        RegistryError: there is no such version, or its record is not what was registered.
    """
    predicate = record_of_version(root, version_of(root, version))
    night = predicate["night"]["id"]
    commit = versions.tag_commit(root, night, versions.CLOSED)
    if commit is None:
        raise NightError(f"night {night} must be closed to be made again, found no tag night/{night}/closed")
    if changed := versions.differing(root, predicate["night"]["commit"], commit):
        raise NightError(
            f"version {version} must be of what night {night} closed with, found {', '.join(changed[:3])} changed "
            "since it was made: another version of that night took its place"
        )
    with _scratch(root, commit, keep) as scratch:
        settings = _settings(root)
        wanted = {stage["name"] for stage in predicate["stages"]}
        with chdir(scratch):  # DVC names stages relative to where one stands
            _restore(scratch, settings)
            for stage in read_graph(scratch):
                if stage.name in wanted and stage.name != _SOURCE:
                    told(stage.name)
                    _perform(scratch, stage.name, settings)
        with contents(root) as kept:
            outputs = [
                _compared(kept, scratch, stage["name"], output)
                for stage in predicate["stages"]
                if stage["name"] != _SOURCE
                for output in stage["outputs"]
            ]
    return Reproduction(version, night, outputs)


@contextmanager
def _scratch(root: Path, commit: str, keep: Path | None) -> Iterator[Path]:
    """Give a clone of the workspace at ``commit``, with nothing in it but what git holds."""
    if keep is not None and keep.exists():
        raise NightError(f"the folder to keep must not exist yet, found {keep} (--keep)")
    place = keep or Path(tempfile.mkdtemp(prefix="reproduced-", dir=root / STATE)) / "clone"
    place.parent.mkdir(parents=True, exist_ok=True)
    for command in (["clone", "-q", "--shared", "--no-checkout", str(root), str(place)], ["checkout", "-q", commit]):
        done = subprocess.run(
            ["git", *command], cwd=root if command[0] == "clone" else place, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NightError(one_line(f"git {command[0]} must succeed, it said: {done.stderr}"))
    local = root / ".dvc" / "config.local"
    if local.exists():
        shutil.copyfile(local, place / ".dvc" / "config.local")
    (place / STATE).mkdir(exist_ok=True)
    try:
        yield place.resolve()
    finally:
        if keep is None:
            shutil.rmtree(place.parent, ignore_errors=True)


def _settings(root: Path) -> dict[str, Any]:
    """Return DVC's settings for the clone: the remote's folder is the workspace's, not one beside the clone."""
    with repository(root) as repo:
        name = repo.config["core"].get("remote")
        return {"config": {"remote": {name: {"url": repo.config["remote"][name]["url"]}}}} if name else {}


def _restore(scratch: Path, settings: Mapping[str, Any]) -> None:
    """Bring the night's inputs: what the night before handed on, and the snapshot."""
    from dvc.exceptions import DvcException

    with repository(scratch, **settings) as repo:
        try:
            repo.pull(targets=["previous.dvc", _SOURCE])
        except DvcException as error:
            raise NightError(one_line(f"the night's inputs must be in DVC's remote, it said: {error}")) from error


def _perform(scratch: Path, name: str, settings: Mapping[str, Any]) -> None:
    from dvc.exceptions import ReproductionError

    environment = {"PATH": programs(), "PYTHONPATH": code_of(scratch)}
    # What is made again is no run of the workspace: its figures stay in the clone, in the outbox, or from a night of
    # before there was one (ADR 20) in a database of the clone's own.
    environment[STAGE_RUN] = "reproduction"
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch / STATE / 'mlflow.db'}"
    with repository(scratch, **settings) as repo:
        try:
            repo.reproduce(name, single_item=True, force=True, run_cache=False, run_env=environment)
        except ReproductionError as error:
            raise NightError(one_line(f"stage {name} must run again, it failed: {error.__cause__ or error}")) from error


def _compared(kept: Contents, scratch: Path, stage: str, output: Mapping[str, Any]) -> Output:
    path, stated = output["path"], output["md5"]
    if kept.read(stated) is None:
        return Output(
            stage, path, "differs", "what was recorded is not kept any more: there is nothing to compare with"
        )
    again = scratch / path
    if again.is_dir():
        before, after = kept.files(stated), md5_of_files(again)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    else:
        changed = [] if again.exists() and md5_file(again) == stated else [again.name]
        before = {again.name: stated}
    if not changed:
        return Output(stage, path, "identical", "byte for byte")
    if output["argument"] in BY_NATURE:
        return Output(stage, path, "by nature", "it holds ids or timings")
    texts = [_distance(kept, name, before.get(name), again / name if again.is_dir() else again) for name in changed[:3]]
    more = f"; {len(changed) - 3} more files differ" if len(changed) > 3 else ""
    return Output(stage, path, "differs", "; ".join(texts) + more)


def _distance(kept: Contents, name: str, md5: str | None, again: Path) -> str:
    data = kept.read(md5) if md5 else None
    if data is None or not again.exists():
        return f"{name}: is {'new' if md5 is None else 'gone' if not again.exists() else 'not kept any more'}"
    return f"{name}: {how_far(name, data, again.read_bytes())}"
