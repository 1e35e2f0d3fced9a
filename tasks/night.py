"""Opening and closing a night: what stands between the stages and last night's outputs.

``night.yaml`` names the night and ``previous/`` holds what the last *closed*
night left. A night is open once its tag ``night/ID/open`` exists and closed
once ``night/ID/closed`` does; everything before a tag can be done again, so a
crash anywhere leaves a night that the next run opens, resumes or closes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from stillhouse.data.files import write_bytes, write_none
from stillhouse.errors import NightError
from stillhouse.params.base import read_yaml
from stillhouse.params.document import load_document
from stillhouse.runner.stage import STATE
from stillhouse.tracking.registry import version_of
from tasks import graph, remote, versions
from tasks.champion import champion_version, fetch_package, package_of, reference_version

__all__ = [
    "PREVIOUS",
    "Night",
    "Plan",
    "close_night",
    "closed_night",
    "last_closed",
    "open_night",
    "others",
    "read_night",
    "unclosed",
]

NIGHT_FILE = "night.yaml"
PREVIOUS = "previous"
#: What a closed night hands to the next, beside its students and the champion: name → path.
HANDED_ON = {
    "vocabulary": "data/vocabulary",
    "profile": "data/profile",
    "teacher": "models/teacher",
    "soft_targets": "data/soft_targets",
}
#: What of it a cold night does without: the weights, and what they said.
_WARM = ("teacher", "soft_targets")
STUDENTS = "models/students"
_TAGGED = (NIGHT_FILE, "previous.dvc", versions.LOCK)


@dataclass(frozen=True)
class Night:
    """One night, as ``night.yaml`` has it."""

    id: str
    as_of: str
    """ISO time with its zone."""
    source: Mapping[str, Any]
    fingerprint: str
    cold: bool
    """Whether teacher and students start afresh."""
    previous: str | None
    """Id of the closed night that ``previous/`` was filled from."""
    revises: str | None
    """Id of the night that this one performs again, from the same ``previous/``; ``None`` for a night of its own."""
    champion: int | None
    """The version in ``previous/champion``, which the students are held against."""
    reference: int | None = None
    """The version in ``previous/reference``, which many small losses add up against (``gate.reference``)."""

    def document(self) -> dict[str, Any]:
        """Return the night as plain data for ``night.yaml``."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


@dataclass(frozen=True)
class Plan:
    """What a run will do: open a night, go on with one, or nothing."""

    action: Literal["open", "resume", "repeat", "nothing"]
    """``repeat``: perform a closed night again."""
    night: Night
    notes: tuple[str, ...] = field(default=())


def read_night(root: Path) -> Night | None:
    """Return the night in ``night.yaml``, or ``None`` where there is none.

    Raises:
        NightError: the file is no night.
    """
    path = root / NIGHT_FILE
    return _night(read_yaml(path), NIGHT_FILE) if path.exists() else None


def _night(values: Any, where: str) -> Night:
    try:
        return Night(**values)
    except TypeError:
        names = ", ".join(Night.__dataclass_fields__)
        raise NightError(f"{where} must hold {names} and nothing else, found something else: remove the file") from None


def closed_night(root: Path, night: str) -> Night:
    """Return a closed night from its tag.

    Raises:
        NightError: no night of that id has closed.
    """
    commit = versions.tag_commit(root, night, versions.CLOSED)
    if commit is None:
        raise NightError(f"night {night} must be closed, found no tag night/{night}/closed")
    return _night(yaml.safe_load(versions.read_at(root, commit, NIGHT_FILE)), f"night/{night}/closed: {NIGHT_FILE}")


def last_closed(root: Path) -> Night | None:
    """Return the closed night with the latest ``as_of``, or ``None``."""
    closed = versions.nights(root, versions.CLOSED)
    return closed_night(root, closed[-1]) if closed else None


def unclosed(root: Path) -> Night | None:
    """Return the night in ``night.yaml`` where it has not closed, opened to the end or not."""
    night = read_night(root)
    return None if night is None or versions.tag_commit(root, night.id, versions.CLOSED) else night


def open_night(root: Path, plan: Plan) -> Night:
    """Carry out ``plan`` up to the first stage: ``previous/``, ``night.yaml`` and the open tag.

    An open night that goes on keeps its ``previous/``, unless another champion or reference has come in
    between: then that one is to be beaten. Done again after a crash, it ends in the same state.

    Returns:
        The night as it was opened.

    Raises:
        NightError: last night's outputs are neither in the cache nor in the remote.
        RegistryError: the champion's files do not match the ledger.
    """
    night = plan.night
    if plan.action in ("nothing", "repeat"):
        return night
    if plan.action == "open":
        if night.revises is not None:
            _restore_previous(root, night.revises)
        else:
            _fill_previous(root, night)
        night = _with_rivals(root, night, _rivals(root))
    elif changed := others(root, night):
        night = _with_rivals(root, night, changed)
    _add_missing(root)
    text = yaml.safe_dump(night.document(), sort_keys=True, allow_unicode=True)
    write_bytes(root / NIGHT_FILE, text.encode())
    versions.tag_night(root, night.id, versions.OPEN, f"Night {night.id}, opened", _TAGGED)
    return night


def others(root: Path, night: Night) -> list[str]:
    """Return which rivals are not those that ``night`` was opened with: somebody else's student has come in between."""
    found = _rivals(root)
    changed = [name for name, version in found.items() if version != getattr(night, name)]
    return [name for name in changed if found[name] is None or version_of(root, found[name] or 0).night != night.id]


def _rivals(root: Path) -> dict[str, int | None]:
    """Return what tonight's students are held against: name in ``previous/`` → version; ``None``: there is none."""
    return {"champion": champion_version(root), "reference": reference_version(root)}


def _with_rivals(root: Path, night: Night, names: Iterable[str]) -> Night:
    """Put the rivals ``names`` of this moment into ``previous/`` and track them."""
    found = {name: version for name, version in _rivals(root).items() if name in names}
    for name, version in found.items():
        target = root / PREVIOUS / name
        shutil.rmtree(target, ignore_errors=True)
        if version is None:
            write_none(target)
        else:
            fetch_package(root, version, package_of(root, version), target)
    graph.track(root, PREVIOUS)
    champion, reference = (found.get(name, getattr(night, name)) for name in ("champion", "reference"))
    return replace(night, champion=champion, reference=reference)


def _restore_previous(root: Path, revised: str) -> None:
    """Bring back the ``previous/`` that the night of that id had, closed or not."""
    commit = versions.tag_commit(root, revised, versions.CLOSED) or versions.tag_commit(root, revised, versions.OPEN)
    write_bytes(root / "previous.dvc", versions.read_at(root, commit or "", "previous.dvc").encode() + b"\n")
    graph.restore_tracked(root, PREVIOUS)


def _fill_previous(root: Path, night: Night) -> None:
    fresh = root / STATE / "previous.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for name, path in HANDED_ON.items():
        if night.previous is None or (name in _WARM and night.cold):
            write_none(fresh / name)
        elif not graph.copy_at(root, _commit(root, night.previous), path, fresh / name):
            raise NightError(
                f"night {night.previous} must have left {path}, found nothing: dvc.yaml and tasks/night.py differ"
            )
    for name in _student_names(root):
        path = f"{STUDENTS}/{name}"
        kept = night.previous is not None and not night.cold
        if not (kept and graph.copy_at(root, _commit(root, night.previous or ""), path, fresh / "students" / name)):
            write_none(fresh / "students" / name)
    shutil.rmtree(root / PREVIOUS, ignore_errors=True)
    fresh.replace(root / PREVIOUS)


def _commit(root: Path, night: str) -> str:
    return versions.tag_commit(root, night, versions.CLOSED) or ""


def _student_names(root: Path) -> list[str]:
    return list(load_document(root / "params.yaml")[0].students)


def _add_missing(root: Path) -> None:
    """Give an empty start to what ``previous/`` lacks; what is there stays as it is.

    It lacks a student that params.yaml has got since, and what an older Stillhouse did not hand on.
    """
    places = [*_WARM, "reference", *(f"students/{name}" for name in _student_names(root))]
    missing = [name for name in places if not (root / PREVIOUS / name).exists()]
    for name in missing:
        write_none(root / PREVIOUS / name)
    if missing:
        graph.track(root, PREVIOUS)


def close_night(root: Path, night: Night, ledger_head: str | None) -> str:
    """Close ``night``: its outputs go to the remote, its tag is made, resume state goes.

    Args:
        root: the workspace.
        night: the night, all of whose stages are up to date.
        ledger_head: hash of the ledger's last entry, anchored in the tag; ``None`` where it is empty.

    Returns:
        The commit of the closed tag.

    Raises:
        NightError: a stage is not up to date, or the remote cannot be written.
    """
    commit = versions.tag_commit(root, night.id, versions.CLOSED)
    stale = sorted(graph.changed(root))
    if stale:
        raise NightError(
            f"every stage must be up to date to close night {night.id}, found changed: {', '.join(stale)}; run it again"
        )
    if commit is None:
        try:
            graph.push(root)
        except NightError as error:
            raise NightError(remote.trouble(root) or str(error)) from error
        message = versions.closing_message(night.id, ledger_head)
        commit = versions.tag_night(root, night.id, versions.CLOSED, message, _TAGGED)
    shutil.rmtree(root / STATE / "resume", ignore_errors=True)
    return commit
