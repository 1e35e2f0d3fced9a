"""Who is champion, by the ledger; the registry's aliases follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Numbered
from stillhouse.lineage.ledger import head, verify_chain
from stillhouse.lineage.projection import State, state
from stillhouse.tracking import aliases, ledger_store
from stillhouse.tracking import registry as versions_store

__all__ = ["champion_line", "champion_version", "fetch_champion", "ledger_head", "repair"]


def _entries(root: Path) -> Sequence[Numbered]:
    return verify_chain(ledger_store.read(root))


def ledger_head(root: Path) -> str | None:
    """Return number and hash of the ledger's last entry, as they are anchored elsewhere; ``None``: it is empty."""
    last = head(_entries(root))
    return f"{last.number}:{last.hash}" if last else None


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


def fetch_champion(root: Path, target: Path) -> int | None:
    """Copy the champion's package to ``target`` (which must not exist), checked against the ledger's hash.

    Returns:
        Its version; ``None`` where there is no champion, and nothing is written.

    Raises:
        RegistryError: its files are not what the ledger names.
    """
    entries = _entries(root)
    version = state(entries).champion
    if version is None:
        return None
    stated = next(numbered.entry.package for numbered in reversed(entries) if numbered.entry.version == version)
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
