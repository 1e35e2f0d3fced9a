"""What the ledger tells: who was in production when, and why; and which teachers there were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from stillhouse.lineage.entry import Entry, Numbered
from stillhouse.lineage.ledger import about
from stillhouse.lineage.projection import State, state
from stillhouse.params.document import load_document
from stillhouse.tracking.registry import TEACHER, VersionInfo, versions
from tasks.champion import ledger_entries, repair
from tasks.clock import moment
from tasks.teachers import BEFORE, BEFORE_NIGHT, FIGURES, START

__all__ = ["History", "Taught", "TeacherHistory", "history", "teacher_history"]


@dataclass(frozen=True)
class History:
    """The ledger up to a moment."""

    entries: Sequence[Numbered]
    """What had happened by then, oldest first."""
    state: State
    """What it added up to."""
    at: datetime | None
    """The moment, in the night's time zone; ``None``: now."""
    zone: ZoneInfo
    """The night's time zone, which times are shown in."""

    @property
    def champion(self) -> Entry | None:
        """The entry by which the champion of that moment came into production; ``None``: there was none."""
        moves = (one.entry for one in reversed(self.entries) if one.entry.moves)
        return next(moves, None)

    def time(self, entry: Entry) -> datetime:
        """Return when ``entry`` was written, in the night's time zone."""
        return datetime.fromisoformat(entry.time).astimezone(self.zone)


def history(root: Path, at: str | None = None) -> History:
    """Return what happened to the student's versions, up to ``at`` or to this moment.

    Args:
        root: the workspace.
        at: a date or an ISO time; without an offset it is in ``night.timezone``.

    Raises:
        ParamsError: ``at`` is no time.
        RegistryError: the ledger is not whole.
    """
    told, shown, zone = _up_to(root, at)
    entries = about(told)
    return History(entries, state(entries), shown, zone)


def _up_to(root: Path, at: str | None) -> tuple[list[Numbered], datetime | None, ZoneInfo]:
    """Return the ledger up to ``at``, that moment in the night's time zone, and the zone."""
    zone = load_document(root / "params.yaml")[0].night.timezone
    until = None if at is None else moment(at, zone, "time (--at)")
    repair(root)
    entries = [one for one in ledger_entries(root) if until is None or datetime.fromisoformat(one.entry.time) <= until]
    return entries, None if until is None else until.astimezone(ZoneInfo(zone)), ZoneInfo(zone)


@dataclass(frozen=True)
class Taught:
    """One registered teacher, and whom it taught."""

    registered: Numbered
    """The ledger's entry of it."""
    figures: Mapping[str, float | None]
    """NDCG@10 by protocol (``leave_one_out``, ``time_window``); ``None``: it was not measured."""
    start: str
    """``warm``, ``cold`` or ``fitted``; "" where the registry has lost the version."""
    before: int | None
    """The registered teacher whose weights went on; ``None``: there was none, or it was not registered."""
    before_night: str | None
    """The night of that teacher, registered or not."""
    md5: str
    """DVC's name of the checkpoint."""
    students: Sequence[int]
    """The students' versions that it taught."""


@dataclass(frozen=True)
class TeacherHistory:
    """The teachers up to a moment."""

    teachers: Sequence[Taught]
    """Oldest first."""
    at: datetime | None
    """The moment, in the night's time zone; ``None``: now."""
    zone: ZoneInfo
    """The night's time zone, which times are shown in."""


def teacher_history(root: Path, at: str | None = None) -> TeacherHistory:
    """Return the teachers that were registered up to ``at`` or to this moment.

    Args:
        root: the workspace.
        at: a date or an ISO time; without an offset it is in ``night.timezone``.

    Raises:
        ParamsError: ``at`` is no time.
        RegistryError: the ledger is not whole.
    """
    told, shown, zone = _up_to(root, at)
    entries = about(told, model=TEACHER)
    if not entries:
        return TeacherHistory([], shown, zone)
    known = {info.version: info for info in versions(root, model=TEACHER)}
    judged = {one.entry.version for one in about(told)}
    students = [info for info in versions(root) if info.version in judged]
    return TeacherHistory([_taught(one, known.get(one.entry.version), students) for one in entries], shown, zone)


def _taught(one: Numbered, info: VersionInfo | None, students: Sequence[VersionInfo]) -> Taught:
    tags = {} if info is None else info.tags
    return Taught(
        one,
        {protocol: float(tags[tag]) if tag in tags else None for protocol, tag in FIGURES.items()},
        tags.get(START, ""),
        int(tags[BEFORE]) if BEFORE in tags else None,
        tags.get(BEFORE_NIGHT),
        tags.get("md5", ""),
        [student.version for student in students if _teaches(one.entry, student)],
    )


def _teaches(teacher: Entry, student: VersionInfo) -> bool:
    """Say whether a student names the teacher; one from before teachers were registered goes by its night."""
    named = student.tags.get(TEACHER)
    return student.night == teacher.night if named is None else named == str(teacher.version)
