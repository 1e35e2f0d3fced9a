"""What the ledger tells: who was in production when, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from stillhouse.lineage.entry import Entry, Numbered
from stillhouse.lineage.projection import State, state
from stillhouse.params.document import load_document
from tasks.champion import ledger_entries, repair
from tasks.clock import moment

__all__ = ["History", "history"]


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
    zone = load_document(root / "params.yaml")[0].night.timezone
    until = None if at is None else moment(at, zone, "time (--at)")
    repair(root)
    entries = [one for one in ledger_entries(root) if until is None or datetime.fromisoformat(one.entry.time) <= until]
    shown = None if until is None else until.astimezone(ZoneInfo(zone))
    return History(entries, state(entries), shown, ZoneInfo(zone))
