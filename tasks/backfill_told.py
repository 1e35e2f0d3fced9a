"""What a backfill's nights came to, from its own registry and ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stillhouse.lineage.entry import Entry
from stillhouse.tracking.registry import STUDENT, VersionInfo
from stillhouse.tracking.registry import versions as registered
from tasks.backfill import closed_at
from tasks.champion import ledger_entries
from tasks.records import record_of_version

__all__ = ["Told", "told_of"]

_WORDS = {"promoted": "promoted", "awaiting": "awaits approval"}


@dataclass(frozen=True)
class Told:
    """One closed night: the student that was chosen, or without one the best."""

    night: str
    student: str
    version: int
    ndcg_at_10: float | None
    """Leave-one-out."""
    verdict: str

    def facts(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def told_of(clone: Path) -> dict[datetime, Told]:
    """Return the time of each closed night → what it came to.

    Raises:
        RegistryError: the backfill's ledger is not whole, or a record is gone or altered.
    """
    nights = closed_at(clone)
    if not nights:
        return {}
    entries = [one.entry for one in ledger_entries(clone) if one.entry.model == STUDENT]
    known = registered(clone)
    found = {}
    for as_of, night in nights.items():
        own = [info for info in known if info.night == night]
        if own:
            found[as_of] = _told(clone, night, own, [entry for entry in entries if entry.night == night])
    return found


def _told(clone: Path, night: str, own: Sequence[VersionInfo], entries: Sequence[Entry]) -> Told:
    figures = {info.version: _ndcg(clone, info) for info in own}
    chosen = next((entry for entry in entries if entry.kind in _WORDS), None)
    if chosen is None:
        best = max(own, key=lambda info: figures[info.version] or 0.0)
        return Told(night, best.name, best.version, figures[best.version], f"{best.verdict}: {best.reason}")
    return Told(night, chosen.name, chosen.version, figures.get(chosen.version), _WORDS[chosen.kind])


def _ndcg(clone: Path, info: VersionInfo) -> float | None:
    value = (record_of_version(clone, info)["student"]["metrics"].get("leave_one_out") or {}).get("ndcg_at_10")
    return None if value is None else float(value)
