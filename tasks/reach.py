"""Forward: from a file of data to every student that it reached."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.files import md5_file, sha256_file, sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.tracking.registry import VersionInfo, versions
from tasks.records import record_bytes

__all__ = ["Reached", "reached", "version_on_disk"]

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
    known = versions(root)
    nights: dict[str, Mapping[str, Any]] = {}
    for info in known:
        if info.night not in nights:  # the students of one night share what they came from
            nights[info.night] = json.loads(record_bytes(root, info))["predicate"]
    held = {name: found for name, one in nights.items() if (found := _held(one, digest))}
    through = {name: step for name in nights if (step := _through(name, nights, held))}
    return [Reached(info, through[info.night], held[through[info.night]]) for info in known if info.night in through]


def _digest_of(root: Path, data: str) -> str:
    file = root / data
    if file.is_file():
        return md5_file(file)
    if not _DIGEST.fullmatch(data):
        raise RegistryError(
            f"data must be named by its MD5 (8 to 32 hexadecimal digits) or by a path, got {data!r} (--data)"
        )
    return data


def _held(predicate: Mapping[str, Any], digest: str) -> str | None:
    """Return the name of the file with that digest in a night's snapshot."""
    for folder, files in predicate["files"].items():
        for name, md5 in files.items():
            if md5.startswith(digest):
                return f"{folder}/{name}"
    return None


def _through(night: str, nights: Mapping[str, Mapping[str, Any]], held: Mapping[str, str]) -> str | None:
    """Return the nearest night, ``night`` first, that held the file and that ``night``'s weights go back to."""
    while night in nights:
        if night in held:
            return night
        one = nights[night]
        if one["night"]["cold"] or not one["ancestor"]:
            return None
        night = one["ancestor"]["night"]
    return None


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
        found = [info for info in known if digest in _subjects(root, info)]
    if not found:
        raise RegistryError(
            f"the bytes on disk must be those of a registered version, found none with {digest[:12]} ({path}): "
            "they were altered, or never registered here"
        )
    return found[-1].version


def _subjects(root: Path, info: VersionInfo) -> set[str]:
    return {one["digest"]["sha256"] for one in json.loads(record_bytes(root, info))["subject"]}
