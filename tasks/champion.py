"""Who is champion, by the ledger; the registry's aliases follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Anchor, Numbered
from stillhouse.lineage.ledger import head, verify_chain
from stillhouse.lineage.projection import State, state
from stillhouse.tracking import aliases, ledger_store
from stillhouse.tracking import registry as versions_store
from stillhouse.tracking.settings import tracking_of
from tasks import versions

__all__ = [
    "champion_line",
    "champion_package",
    "champion_version",
    "fetch_champion",
    "ledger_anchors",
    "ledger_head",
    "promoted_by",
    "repair",
]


def _entries(root: Path) -> Sequence[Numbered]:
    """Return the ledger's entries, held against the heads that closed nights' tags have written down.

    Nothing is created by looking: where the workspace has no database yet, there is no entry.
    """
    database = tracking_of(root).database
    there = database is None or database.exists()
    return verify_chain(ledger_store.read(root) if there else (), ledger_anchors(root))


def ledger_anchors(root: Path) -> list[Anchor]:
    """Return the ledger's head as each closed night's tag names it."""
    return [Anchor(head, f"git tag night/{night}/closed") for night, head in versions.ledger_heads(root)]


def promoted_by(root: Path, night: str) -> bool:
    """Say whether a student of ``night`` was made champion by the gate."""
    return any(one.entry.kind == "promoted" and one.entry.night == night for one in _entries(root))


def ledger_head(root: Path) -> str | None:
    """Return the hash of the ledger's last entry, which a closed night's tag anchors; ``None``: it is empty."""
    last = head(_entries(root))
    return last.hash if last else None


def repair(root: Path) -> State:
    """Make the registry's aliases equal the ledger's state, and return that state."""
    now = state(_entries(root))
    aliases.repair(root, champion=now.champion, challenger=now.challenger, previous=now.previous)
    return now


def champion_version(root: Path) -> int | None:
    """Return the champion's version by the ledger; ``None``: there is none yet.

    Raises:
        RegistryError: the ledger is not whole.
    """
    return state(_entries(root)).champion


def champion_package(root: Path) -> tuple[int, str] | None:
    """Return the champion's version and its package's SHA-256, both by the ledger; ``None``: there is none yet.

    Raises:
        RegistryError: the ledger is not whole.
    """
    entries = _entries(root)
    version = state(entries).champion
    if version is None:
        return None
    return version, next(one.entry.package for one in reversed(entries) if one.entry.version == version)


def fetch_champion(root: Path, target: Path) -> int | None:
    """Copy the champion's package to ``target`` (which must not exist), checked against the ledger's hash.

    Returns:
        Its version; ``None`` where there is no champion, and nothing is written.

    Raises:
        RegistryError: its files are not what the ledger names.
    """
    champion = champion_package(root)
    if champion is None:
        return None
    version, stated = champion
    versions_store.download(root, version, target)
    if (found := sha256_tree(target)) != stated:
        raise RegistryError(
            f"the champion's package must hash to {stated[:12]}, found {found[:12]} (version {version}): "
            "the registry's files were altered; restore them from a backup"
        )
    return version


def champion_line(root: Path) -> str:
    """Return one line that says who is champion."""
    version = champion_version(root)
    if version is None:
        return "champion     none yet"
    info = versions_store.version_of(root, version)
    return f"champion     student version {version}: {info.name} of night {info.night}"
