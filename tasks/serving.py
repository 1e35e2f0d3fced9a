"""The champion, loaded to answer requests, and the histories that users of the workspace have."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.files import sha256_tree
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import ServingError
from stillhouse.runner.stage import STATE
from stillhouse.serve.student import Student
from stillhouse.tracking.registry import version_of
from tasks.champion import champion_package, fetch_package, repair

__all__ = ["Champion", "history_of", "load_champion", "package_at_hand"]


@dataclass(frozen=True)
class Champion:
    """The student in production."""

    student: Student
    label: str
    """What to call it: version, name, night."""


def load_champion(root: Path) -> Champion:
    """Load the champion, its files checked against the ledger before they are opened.

    Raises:
        ServingError: there is no champion yet.
        RegistryError: its files are not what the ledger names.
    """
    champion = champion_package(root)
    if champion is None:
        raise ServingError("a champion must be there to answer, found none: `stillhouse run` makes one")
    repair(root)
    version, digest = champion
    place = package_at_hand(root, version, digest)
    info = version_of(root, version)
    return Champion(
        Student.load(place, digest=digest), f"student version {version} ({info.name} of night {info.night})"
    )


def package_at_hand(root: Path, version: int, digest: str) -> Path:
    """Return the folder of a version's package, fetched where it is not at hand; of two that fetch, either's will do.

    Args:
        root: the workspace.
        version: a registered version.
        digest: the SHA-256 that the ledger names for its package.

    Raises:
        RegistryError: its files are not what the ledger names.
    """
    place = root / STATE / "serving" / digest
    if place.exists() and sha256_tree(place) == digest:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        fresh = fetch_package(root, version, digest, Path(folder) / "package")
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # another was first
            fresh.replace(place)
    return place


def history_of(root: Path, user: str) -> tuple[list[str], bool]:
    """Return a user's history as item ids, oldest first, from the night's prepared data, and whether the user is known.

    Raises:
        ServingError: no night has prepared data here.
    """
    vocabulary, sequences = root / "data" / "vocabulary", root / "data" / "sequences"
    if not (vocabulary.exists() and sequences.exists()):
        raise ServingError("a user's history comes from prepared data, found none here: run a night, or give --items")
    words = Vocabulary.load(vocabulary)
    index = words.user_index(user)
    if index < 0:
        return [], False
    events = Sequences.open(sequences)
    length = int(events.offsets[index + 1] - events.offsets[index])
    return [words.item_ids[item] for item in events.history(index, length)], True
