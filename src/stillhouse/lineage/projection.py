"""What the ledger adds up to: who is champion, who challenges, what a rollback returns to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from stillhouse.lineage.entry import Entry, Numbered

__all__ = ["Projection", "State", "state"]


@dataclass(frozen=True)
class State:
    """The registry's aliases as the ledger has them."""

    champion: int | None = None
    challenger: int | None = None
    """The latest version that was refused, waits, or was rejected, until it is promoted itself."""
    previous: int | None = None
    """What a rollback would return to."""
    awaiting: int | None = None
    """The version that waits for a person."""


@dataclass
class Projection:
    """The state so far; entries are applied one by one."""

    line: list[int] = field(default_factory=list)
    """Champions, oldest first; a rollback cuts it."""
    challenger: int | None = None
    awaiting: int | None = None

    def apply(self, entry: Entry) -> None:
        """Take in the next entry."""
        version = entry.version
        if entry.kind == "promoted":
            self.line.append(version)
            self.challenger = None if self.challenger == version else self.challenger
            self.awaiting = None  # whoever waited was held against another champion
        elif entry.kind == "rolled_back":
            # The latest time that it reigned: who came before it then is who a second rollback returns to.
            places = [place for place, one in enumerate(self.line) if one == version]
            self.line = self.line[: places[-1] + 1] if places else [*self.line, version]
        elif entry.kind != "registered":
            self.challenger = version
            if entry.kind == "awaiting":
                self.awaiting = version
            elif entry.kind == "rejected" and self.awaiting == version:
                self.awaiting = None

    @property
    def state(self) -> State:
        """What the entries taken in add up to."""
        line = [None, None, *self.line]
        return State(line[-1], self.challenger, line[-2], self.awaiting)


def state(entries: Iterable[Numbered], *, model: str = "student", at: datetime | None = None) -> State:
    """Return what the entries add up to.

    Args:
        entries: counting entries in order.
        model: the registered model to look at.
        at: leave out what happened later (an instant with a zone); ``None``: nothing is left out.
    """
    projection = Projection()
    for numbered in entries:
        entry = numbered.entry
        if entry.model == model and (at is None or datetime.fromisoformat(entry.time) <= at):
            projection.apply(entry)
    return projection.state
