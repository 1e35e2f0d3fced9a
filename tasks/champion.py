"""Who is champion, by the ledger; the registry's aliases follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillhouse.data.files import sha256_tree
from stillhouse.errors import AlteredError, RegistryError
from stillhouse.lineage.entry import Anchor, Numbered
from stillhouse.lineage.ledger import about, verify_chain
from stillhouse.lineage.projection import State, state
from stillhouse.params.document import load_document
from stillhouse.tracking import aliases, ledger_store
from stillhouse.tracking import registry as versions_store
from stillhouse.tracking.settings import tracking_of
from tasks import versions

__all__ = [
    "awaiting_line",
    "champion_line",
    "champion_package",
    "champion_version",
    "fetch_package",
    "ledger_anchors",
    "ledger_entries",
    "package_of",
    "promoted_by",
    "reference_version",
    "repair",
]


def ledger_entries(root: Path) -> Sequence[Numbered]:
    """Return the ledger's entries, held against the heads that closed nights' tags have written down.

    They are about students and teachers: `stillhouse.lineage.ledger.about` parts them.

    Nothing is created by looking: where the workspace has no database yet, there is no entry.
    """
    return verify_chain(ledger_store.read(root) if _kept(root) else (), ledger_anchors(root))


def _kept(root: Path) -> bool:
    """Say whether anything is tracked yet: looking must not make a database."""
    database = tracking_of(root).database
    return database is None or database.exists()


def ledger_anchors(root: Path) -> list[Anchor]:
    """Return the ledger's head as each closed night's tag names it."""
    return [Anchor(head, f"git tag night/{night}/closed") for night, head in versions.ledger_heads(root)]


def promoted_by(root: Path, night: str) -> bool:
    """Say whether a student of ``night`` was made champion, by the gate or by a person."""
    entries = [one.entry for one in about(ledger_entries(root))]
    own = {entry.version for entry in entries if entry.night == night}
    return any(entry.kind == "promoted" and entry.version in own for entry in entries)


def repair(root: Path) -> State:
    """Make the registry's aliases equal the ledger's state, and return that state."""
    now = state(ledger_entries(root))
    if _kept(root):
        aliases.repair(root, champion=now.champion, challenger=now.challenger, previous=now.previous)
    return now


def champion_version(root: Path) -> int | None:
    """Return the champion's version by the ledger; ``None``: there is none yet.

    Raises:
        RegistryError: the ledger is not whole.
    """
    return state(ledger_entries(root)).champion


def champion_package(root: Path) -> tuple[int, str] | None:
    """Return the champion's version and its package's SHA-256, both by the ledger; ``None``: there is none yet.

    Raises:
        RegistryError: the ledger is not whole.
    """
    version = champion_version(root)
    return None if version is None else (version, package_of(root, version))


def reference_version(root: Path) -> int | None:
    """Return the version that many small losses add up against, as ``gate.reference`` has it; ``None``: there is none.

    Raises:
        RegistryError: the ledger is not whole, or there is no such version.
    """
    asked = load_document(root / "params.yaml")[0].gate.reference
    if asked == "none":
        return None
    if asked != "first":
        try:
            return versions_store.version_of(root, asked).version
        except RegistryError as error:
            raise RegistryError(f"gate.reference must name a version: {error} (params.yaml: gate.reference)") from None
    moves = (one.entry for one in about(ledger_entries(root)) if one.entry.moves)
    return next((entry.version for entry in moves), None)


def package_of(root: Path, version: int) -> str:
    """Return the SHA-256 of the package of ``version``, by the ledger.

    Raises:
        RegistryError: the ledger is not whole, or has no entry of the version.
    """
    found = about(ledger_entries(root), version)
    if not found:
        raise RegistryError(f"version {version} must be in the ledger, found no entry of it (stillhouse history)")
    return found[-1].entry.package


def fetch_package(root: Path, version: int, digest: str, target: Path) -> Path:
    """Copy the package of ``version`` to ``target``, which must not exist, checked against the ledger's ``digest``.

    Raises:
        RegistryError: its files are not what the ledger names.
    """
    versions_store.download(root, version, target)
    if (found := sha256_tree(target)) != digest:
        raise AlteredError(
            f"the package of version {version} must hash to {digest[:12]}, as the ledger names it, found {found[:12]}: "
            "the registry's files were altered; restore them from a backup"
        )
    return target


def champion_line(root: Path) -> str:
    """Return one line that says who is champion."""
    version = champion_version(root)
    if version is None:
        return "champion     none yet"
    info = versions_store.version_of(root, version)
    return f"champion     student version {version}: {info.name} of night {info.night}"


def awaiting_line(version: int) -> str:
    """Return one line that says which version waits for a person, and what the person does."""
    return f"awaiting     student version {version}: stillhouse approve, or stillhouse reject --reason TEXT"
