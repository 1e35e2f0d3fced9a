"""Registering a night's students and writing the gate's decision into the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stillhouse.evaluate.gate import Verdict
from stillhouse.lineage.entry import Entry, Kind
from stillhouse.lineage.ledger import counting, following
from stillhouse.lineage.projection import State
from stillhouse.tracking import ledger_store
from stillhouse.tracking import registry as versions_store
from tasks.champion import ledger_anchors, repair
from tasks.gate import Decision
from tasks.night import Night
from tasks.record import record_of
from tasks.records import keep_record
from tasks.signing import envelope_of

__all__ = ["promote", "register"]


def register(root: Path, night: Night, decision: Decision, run_id: str, teacher: int | None = None) -> dict[str, int]:
    """Register every student of the night, those that failed too.

    Done again, it finds what is there: a version is known by its package's hash and its night.

    Args:
        root: the workspace.
        night: the night.
        decision: the gate's.
        run_id: the night's tracking run.
        teacher: the registered version of the night's teacher.

    Returns:
        Student → version.

    Raises:
        RegistryError: the registry refuses.
    """
    found: dict[str, int] = {}
    for verdict in decision.verdicts:
        name = verdict.student
        record = record_of(root, night, name, decision)
        found[name] = versions_store.register_student(
            root,
            root / "packages" / name,
            night=night.id,
            name=name,
            digest=record.package,
            statement=record.statement,
            envelope=envelope_of(record.statement),
            card=record.card,
            metrics=record.metrics,
            verdict="passed" if verdict.passed else "refused",
            reason=verdict.reason,
            histories=record.histories,
            run_id=run_id,
            teacher=teacher,
        )
        keep_record(root, record.statement)
    return found


def promote(root: Path, night: Night, decision: Decision, versions: dict[str, int]) -> State:
    """Write what the gate decided into the ledger and make the aliases follow it.

    A student that passed and was chosen becomes champion, or waits for a person where ``gate.mode`` is ``approve``;
    one that failed is the challenger, with the reason; another that passed is noted.

    Returns:
        What the ledger adds up to now.

    Raises:
        RegistryError: the ledger is not whole, or another champion came in between.
    """
    anchors = ledger_anchors(root)
    for verdict in decision.verdicts:
        entry = _entry(root, night, decision, verdict, versions[verdict.student])
        ledger_store.append(root, partial(following, entry, anchors=anchors), counting)
    return repair(root)


def _entry(root: Path, night: Night, decision: Decision, verdict: Verdict, version: int) -> Entry:
    chosen = verdict.student == decision.chosen
    kind: Kind = "registered" if verdict.passed else "refused"
    if chosen:
        kind = "promoted" if decision.mode == "automatic" else "awaiting"
    info = versions_store.version_of(root, version)
    return Entry(
        kind=kind,
        key=f"gate:{night.id}:{version}:{decision.digest[:12]}",
        night=night.id,
        version=version,
        name=verdict.student,
        package=info.package,
        statement=info.statement,
        verdict=decision.digest,
        replaces=night.champion if chosen else None,
        reason=verdict.reason,
        actor="gate",
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
