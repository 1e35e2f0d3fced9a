"""Forward: from a file of data to every student that it reached."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.files import md5_file, sha256_file, sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.tracking.registry import VersionInfo, versions
from tasks import versions as nights_store
from tasks.audit_night import outputs_of
from tasks.content import Contents, contents
from tasks.night import closed_night
from tasks.records import records

__all__ = ["Reached", "reached", "version_on_disk"]

_SNAPSHOT = "data/snapshot"
_DIGEST = re.compile(r"[0-9a-f]{8,32}")


@dataclass(frozen=True)
class Reached:
    """A student that a file of data reached."""

    info: VersionInfo
    through: str
    """The night whose snapshot held the file: its own, or one that its teacher or itself started from."""
    file: str
    """The file's name in that snapshot."""


def reached(root: Path, data: str) -> list[Reached]:
    """Return every registered student that a snapshot's file reached, in the order of their versions.

    A file reaches the students of each night whose snapshot held it, and those of each later night whose weights
    started from such a night's, back to the nearest night that started afresh.

    Args:
        root: the workspace.
        data: the MD5 of the file as records name it (at least 8 digits), or the path of a copy of it.

    Raises:
        RegistryError: ``data`` is neither, or a record is not what was registered.
    """
    digest = _digest_of(root, data)
    infos = versions(root)
    known = [(info, json.loads(data)["predicate"]) for info, data in zip(infos, records(root, infos), strict=True)]
    nights: dict[str, list[Mapping[str, Any]]] = {}
    for info, predicate in known:
        nights.setdefault(info.night, []).append(predicate)
    found = []
    with contents(root) as kept:
        search = _Search(root, kept, digest, nights)
        for info, predicate in known:
            if (step := search.through(predicate)) is not None:
                found.append(Reached(info, *step))
    return found


class _Search:
    """Looks for one file in the snapshots of nights, each once."""

    def __init__(
        self, root: Path, kept: Contents, digest: str, nights: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> None:
        self._root, self._kept, self._digest, self._nights = root, kept, digest, nights
        self._known: dict[str, str | None] = {}

    def through(self, predicate: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the nearest night that held the file and that the weights go back to, and the file's name there."""
        if (name := self._held(predicate)) is not None:
            return predicate["night"]["id"], name
        cold, step = predicate["night"]["cold"], predicate["ancestor"]
        while not cold and step is not None:
            night = step["night"]
            if (name := self._of(night)) is not None:
                return night, name
            cold, step = self._before(night)
        return None

    def _held(self, predicate: Mapping[str, Any]) -> str | None:
        """Return the name of the file in the snapshot of one record."""
        for folder, files in predicate["files"].items():
            for name, md5 in files.items():
                if md5.startswith(self._digest):
                    return f"{folder}/{name}"
        return None

    def _of(self, night: str) -> str | None:
        """Return the file's name in any snapshot of a night: its students', or without one what it closed with."""
        if night not in self._known:
            names = [self._held(predicate) for predicate in self._nights.get(night, ())]
            if night not in self._nights:
                names.append(self._closed_with(night))
            self._known[night] = next((name for name in names if name is not None), None)
        return self._known[night]

    def _closed_with(self, night: str) -> str | None:
        commit = nights_store.tag_commit(self._root, night, nights_store.CLOSED)
        lock = commit and nights_store.read_many(self._root, commit, [nights_store.LOCK])[nights_store.LOCK]
        md5 = outputs_of(lock).get(_SNAPSHOT) if lock else None
        files = self._kept.files(md5) if md5 else {}
        if not files:
            raise RegistryError(
                f"every night that weights go back to must be known, found neither a student nor a snapshot of night "
                f"{night}: what the file reached cannot be said"
            )
        return next((f"{_SNAPSHOT}/{name}" for name, found in files.items() if found.startswith(self._digest)), None)

    def _before(self, night: str) -> tuple[bool, Mapping[str, Any] | None]:
        """Return whether a night started afresh, and the night that it came from."""
        if night in self._nights:
            last = self._nights[night][-1]
            return last["night"]["cold"], last["ancestor"]
        held = closed_night(self._root, night)
        return held.cold, {"night": held.previous} if held.previous else None


def _digest_of(root: Path, data: str) -> str:
    for file in (Path(data), root / data):
        if file.is_file():
            return md5_file(file)
    if not _DIGEST.fullmatch(data):
        raise RegistryError(
            f"data must be named by its MD5 (8 to 32 hexadecimal digits) or by a path, got {data!r} (--data)"
        )
    return data


def version_on_disk(root: Path, path: Path) -> int:
    """Return the latest version whose package is the folder ``path``, or holds the file ``path``.

    Raises:
        RegistryError: no registered version holds these bytes.
    """
    known = versions(root)
    if path.is_dir():
        digest = sha256_tree(path)
        found = [info for info in known if info.package == digest]
    else:
        digest = sha256_file(path)
        found = [info for info, data in zip(known, records(root, known), strict=True) if digest in _subjects(data)]
    if not found:
        raise RegistryError(
            f"the bytes on disk must be those of a registered version, found none with {digest[:12]} ({path}): "
            "they were altered, or never registered here"
        )
    return found[-1].version


def _subjects(record: bytes) -> set[str]:
    return {one["digest"]["sha256"] for one in json.loads(record)["subject"]}
