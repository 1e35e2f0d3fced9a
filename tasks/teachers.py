"""A night's teacher as a version of the registered model ``teacher``: registered, and found again.

Its weights stay where they are: DVC keeps every night's checkpoint, and the version names it by hash. An entry of
the ledger says that there is such a version; nothing is decided about it, for what serves are students.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import counting, following
from stillhouse.tracking import ledger_store
from stillhouse.tracking.registry import TEACHER, VersionInfo, register_teacher, version_of
from stillhouse.tracking.registry import versions as registered_versions
from tasks import versions
from tasks.champion import ledger_anchors
from tasks.night import Night
from tasks.record import TeacherRecord, teacher_record_of
from tasks.signing import envelope_of

__all__ = ["Teachers", "register"]

#: Tags of a version, by which teachers are listed without opening a record: those of the figures, and of the start.
FIGURES = {"leave_one_out": "leave_one_out.ndcg_at_10", "time_window": "time_window.ndcg_at_10"}
START, BEFORE, BEFORE_NIGHT = "start", "from", "from_night"


class Teachers:
    """The registered teachers, looked up by night and content."""

    def __init__(self, known: Iterable[VersionInfo]) -> None:
        self._by_md5: dict[str, list[VersionInfo]] = defaultdict(list)
        for info in known:
            self._by_md5[info.tags.get("md5", "")].append(info)

    @classmethod
    def of(cls, root: Path) -> Teachers:
        """Return those of the workspace; none where none was registered yet."""
        return cls(registered_versions(root, model=TEACHER))

    def find(self, night: str, md5: str) -> VersionInfo | None:
        """Return the version that a night's teacher is; ``None``: it was not registered.

        A night that performed another again, and came to the same teacher, has that one's version.

        Args:
            night: the night's id.
            md5: DVC's name of the checkpoint.
        """
        same = self._by_md5.get(md5, [])
        own = [info for info in same if info.night == night]
        of_day = [info for info in same if _day(info.night) == _day(night)]
        return next(iter(own or of_day), None)

    def version(self, night: str, md5: str) -> int | None:
        """Return the number of what `find` finds."""
        found = self.find(night, md5)
        return None if found is None else found.version


def _day(night: str) -> str:
    """Return a night's id without its revision."""
    return night.partition(".")[0]


def register(root: Path, night: Night, run_id: str) -> int:
    """Register the teacher of ``night``, which has passed its check, and write it into the ledger.

    Done again, it finds what is there: a version is known by its checkpoint's hash and its night. A revision that
    came to the same checkpoint keeps the version of the night that it performs again.

    Returns:
        The version.

    Raises:
        RegistryError: the registry refuses, or the ledger is not whole.
    """
    teachers = Teachers.of(root)
    record = teacher_record_of(root, night, teachers.version)
    info = _revised(root, night, teachers, record) or _registered(root, night, record, run_id)
    entry = Entry(
        model=TEACHER,
        kind="registered",
        key=f"{TEACHER}:{info.night}:{info.version}",
        night=info.night,
        version=info.version,
        name=info.name,
        package=info.package,
        statement=info.statement,
        reason=info.reason,
        actor="check_teacher",
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    ledger_store.append(root, partial(following, entry, anchors=ledger_anchors(root)), counting)
    return info.version


def _revised(root: Path, night: Night, teachers: Teachers, record: TeacherRecord) -> VersionInfo | None:
    """Return the version that another performance of the night has registered of the same checkpoint.

    One that never closed has no tag that its record could be held against, so it is passed over.
    """
    found = None if night.revises is None else teachers.find(night.id, record.md5)
    if found is None or found.package != record.checkpoint:
        return None
    return found if versions.tag_commit(root, found.night, versions.CLOSED) else None


def _registered(root: Path, night: Night, record: TeacherRecord, run_id: str) -> VersionInfo:
    version = register_teacher(
        root,
        night=night.id,
        digest=record.checkpoint,
        md5=record.md5,
        statement=record.statement,
        envelope=envelope_of(record.statement),
        card=record.card,
        metrics=record.metrics,
        reason=record.reason,
        facts=_facts(record),
        run_id=run_id,
    )
    return version_of(root, version, TEACHER)


def _facts(record: TeacherRecord) -> dict[str, str]:
    figures = {tag: (record.metrics.get(protocol) or {}).get("ndcg_at_10") for protocol, tag in FIGURES.items()}
    facts = {tag: repr(value) for tag, value in figures.items() if value is not None} | {START: record.start}
    if record.before is not None:
        facts[BEFORE_NIGHT] = record.before["night"]
        if record.before["version"] is not None:
            facts[BEFORE] = str(record.before["version"])
    return facts
