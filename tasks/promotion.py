"""The champion moved by a person: promoted, rolled back, approved or rejected. Each is one entry of the ledger.

A move is decided against the champion of that moment. Should another come in
between, the ledger refuses it; should it be killed halfway, the entry either
stands, and the next command makes the aliases follow, or was never written.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from stillhouse.errors import NightError, RegistryError
from stillhouse.lineage import statement
from stillhouse.lineage.entry import Entry, Numbered
from stillhouse.lineage.ledger import about, counting, following, head
from stillhouse.lineage.projection import State, state
from stillhouse.tracking import ledger_store
from stillhouse.tracking import registry as versions_store
from tasks.anchors import anchor, require_anchored
from tasks.champion import ledger_anchors, ledger_entries, repair

__all__ = ["Move", "approval", "carry_out", "promotion", "rejection", "rollback"]


@dataclass(frozen=True)
class Move:
    """What a person decided, held against the ledger as it was then."""

    kind: Literal["promoted", "rolled_back", "rejected"]
    version: int
    replaces: int | None
    """The champion that it was decided against; ``None``: there was none, or none moves."""
    reason: str
    actor: str
    """Who decided."""
    verdict: str | None
    """SHA-256 of the gate's decision on the version."""
    head: str | None
    """Hash of the ledger's last entry then: it must be the last still when the move is written."""

    @property
    def key(self) -> str:
        """What makes the decision one act: a killed one that is carried out again is not written twice."""
        return f"{self.kind}:{self.version}:{(self.head or 'none')[:12]}"

    @property
    def label(self) -> str:
        """What the flow's run is called."""
        return f"{self.kind.replace('_', ' ')}: version {self.version}"


def promotion(root: Path, version: int, reason: str, actor: str, *, override_gate: bool = False) -> Move | None:
    """Return the move that makes ``version`` champion; ``None``: it is champion already.

    Args:
        root: the workspace.
        version: a registered version.
        reason: why, for those who read the ledger later.
        actor: who decides.
        override_gate: promote a version that the gate refused all the same.

    Raises:
        RegistryError: there is no such version, it is not in the ledger, its files are not what the ledger names,
            or the gate refused it.
    """
    entries = ledger_entries(root)
    now = state(entries)
    if version == now.champion:
        return None
    judged = _judged(root, entries, version)
    if judged.kind == "refused" and not override_gate:
        raise RegistryError(
            f"version {version} must have passed the gate to be promoted, found it refused: {judged.reason}; "
            "promote another, or say --override-gate to answer for it yourself"
        )
    return _checked(
        root, entries, Move("promoted", version, now.champion, reason, actor, judged.verdict, _hash(entries))
    )


def rollback(root: Path, reason: str, actor: str) -> Move:
    """Return the move back to the champion before this one.

    Raises:
        RegistryError: there was none, or its files are not what the ledger names.
    """
    entries = ledger_entries(root)
    now = state(entries)
    if now.previous is None:
        raise RegistryError(
            f"an earlier champion must be there to return to, found {_champion(now)} and none before it "
            "(stillhouse history shows them)"
        )
    judged = _judged(root, entries, now.previous)
    move = Move("rolled_back", now.previous, now.champion, reason, actor, judged.verdict, _hash(entries))
    return _checked(root, entries, move)


def approval(root: Path, version: int | None, reason: str, actor: str) -> Move:
    """Return the move that promotes the version that waits for a person.

    Args:
        root: the workspace.
        version: the one that is meant; ``None``: whichever waits.
        reason: why.
        actor: who approves.

    Raises:
        RegistryError: none waits, another one does, its files are not what the ledger names, or the champion is no
            longer the one that the gate held it against.
    """
    entries = ledger_entries(root)
    waiting = _waiting(entries, version)
    champion = state(entries).champion
    if champion != waiting.replaces:
        raise RegistryError(
            f"version {waiting.version} must be approved against the champion that the gate held it against "
            f"(version {waiting.replaces}), found version {champion}: `stillhouse run --force` judges it again"
        )
    move = Move("promoted", waiting.version, champion, reason, actor, waiting.verdict, _hash(entries))
    return _checked(root, entries, move)


def rejection(root: Path, version: int | None, reason: str, actor: str) -> Move:
    """Return the move that turns down the version that waits for a person; the champion stands.

    Raises:
        RegistryError: none waits, or another one does.
    """
    entries = ledger_entries(root)
    waiting = _waiting(entries, version)
    return Move("rejected", waiting.version, None, reason, actor, waiting.verdict, _hash(entries))


def carry_out(root: Path, move: Move) -> State:
    """Write ``move`` into the ledger and make the aliases follow; done again, nothing is written twice.

    Returns:
        What the ledger adds up to now.

    Raises:
        RegistryError: the ledger is not whole, or has gone on since the decision.
    """
    if move.actor == "gate":
        raise RegistryError(
            "a person must not go by the name gate, which the ledger keeps for itself (--actor, STILLHOUSE_ACTOR)"
        )
    info = versions_store.version_of(root, move.version)
    entry = Entry(
        kind=move.kind,
        key=move.key,
        night=None,
        version=move.version,
        name=info.name,
        package=info.package,
        statement=info.statement,
        verdict=move.verdict,
        replaces=move.replaces,
        reason=move.reason,
        actor=move.actor,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=move.head,
    )
    with contextlib.suppress(NightError):  # what was cut off the ledger must show before anything is added to it
        require_anchored(root)
    ledger_store.append(root, partial(following, entry, anchors=ledger_anchors(root)), counting)
    with contextlib.suppress(NightError):  # a remote that is away stops no rollback; the next night writes it there
        anchor(root)
    return repair(root)


def _judged(root: Path, entries: Sequence[Numbered], version: int) -> Entry:
    """Return the last entry that the gate wrote about ``version``."""
    versions_store.version_of(root, version)  # a number that is none lists those that are
    for one in reversed(about(entries, version)):
        if one.entry.night is not None:
            return one.entry
    raise RegistryError(
        f"version {version} must have come before the gate, found no entry of it in the ledger: "
        "its night has not got that far (stillhouse run goes on with it)"
    )


def _waiting(entries: Sequence[Numbered], version: int | None) -> Entry:
    awaiting = state(entries).awaiting
    if awaiting is None or version not in (None, awaiting):
        found = "none" if awaiting is None else f"version {awaiting}"
        asked = "a version" if version is None else f"version {version}"
        raise RegistryError(
            f"{asked} must wait for approval, found {found} waiting: `stillhouse history` shows what was decided"
        )
    return next(one.entry for one in reversed(about(entries, awaiting)) if one.entry.kind == "awaiting")


def _checked(root: Path, entries: Sequence[Numbered], move: Move) -> Move:
    """Return ``move`` where the version's files are those that the ledger and its own record name."""
    stated = about(entries, move.version)[-1].entry
    with tempfile.TemporaryDirectory(prefix="stillhouse-move-") as folder:
        package = versions_store.download(root, move.version, Path(folder) / "package")
        info = versions_store.version_of(root, move.version)
        if info.package != stated.package or info.statement != stated.statement:
            raise RegistryError(
                f"version {move.version} must be what ledger entry {stated.key} names, found another package or record "
                "in the registry's tags: it was altered; restore it from a backup"
            )
        record = statement.read(versions_store.read_statement(root, move.version))
        if problems := statement.mismatches(record, package):
            raise RegistryError(
                f"the package of version {move.version} must be what its record is about, found: {'; '.join(problems)}"
            )
    return move


def _hash(entries: Sequence[Numbered]) -> str | None:
    last = head(entries)
    return last.hash if last else None


def _champion(now: State) -> str:
    return "no champion" if now.champion is None else f"champion version {now.champion}"
