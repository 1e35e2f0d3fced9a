"""The ledger's rules: which entries count, which were altered, removed or cut off, and what may follow.

An entry names the hash of the one before it. Entries are numbered by the
registry, and several writers may race, so one rule decides: *an entry counts
when it names the hash of the latest counting entry before it, in the order of
numbers*. Any other is void: its writer lost. Void entries that name a hash
which never was are no losers: something before them is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pydantic

from stillhouse.errors import RegistryError, one_line
from stillhouse.lineage.entry import Anchor, Entry, Numbered, Record, entry_hash
from stillhouse.lineage.projection import Projection, state

__all__ = ["Chain", "about", "chain", "counting", "following", "head", "verify_chain"]

_SHORT = 12


@dataclass
class Chain:
    """The ledger read: what counts, what lost a race, and what is wrong."""

    entries: list[Numbered] = field(default_factory=list)
    void: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """One line for each entry that was altered, removed or cut off."""


class _Reader:
    """Walks the records in order. After a finding it goes on with what the next entry names: one cause, one line."""

    def __init__(self) -> None:
        self.chain = Chain()
        self._latest: str | None = None
        self._known: set[str | None] = {None}  # every hash that was latest at some time: a loser names one of these
        self._last = 0
        self._projections: dict[str, Projection] = defaultdict(Projection)

    def take(self, record: Record) -> None:
        entry = self._parsed(record)
        if entry is not None and entry.previous != self._latest:
            if entry.previous in self._known:
                self.chain.void.append(record.number)
                return
            self.chain.findings.append(_gone(record.number, self._last, str(entry.previous)))
            self._known.add(entry.previous)
        if entry is not None:
            self._check_move(record.number, entry)
            self.chain.entries.append(Numbered(record.number, record.digest, entry))
        self._latest, self._last = record.digest, record.number
        self._known.add(record.digest)

    def _parsed(self, record: Record) -> Entry | None:
        actual = entry_hash(record.text)
        if actual != record.digest:
            self.chain.findings.append(_altered(record.number, actual, f"it was written as {record.digest[:_SHORT]}"))
        try:
            return Entry.model_validate_json(record.text)
        except pydantic.ValidationError as error:
            problem = one_line(str(error.errors()[0]["msg"]))
            self.chain.findings.append(f"entry {record.number} was altered: it is no entry any more ({problem})")
            return None

    def _check_move(self, number: int, entry: Entry) -> None:
        projection = self._projections[entry.model]
        champion = projection.state.champion
        if entry.moves and entry.replaces != champion:
            self.chain.findings.append(
                f"entry {number} replaces version {entry.replaces}, but the champion before it was {champion}"
            )
        projection.apply(entry)


def _altered(number: int, actual: str, against: str) -> str:
    return f"entry {number} was altered: its text hashes to {actual[:_SHORT]}, {against}"


def _gone(number: int, last: int, missing: str) -> str:
    start = f"entry {number} follows {missing[:_SHORT]}, which is gone: "
    if last == 0:
        return start + "the ledger's beginning was cut off"
    if number - last == 1:
        return start + f"entry {last} was altered"
    lost = f"entry {last + 1} was" if number - last == 2 else f"entries {last + 1} to {number - 1} were"
    return start + f"{lost} removed, or entry {last} altered"


def chain(records: Iterable[Record], anchors: Iterable[Anchor] = ()) -> Chain:
    """Read the ledger and name every entry that was altered, removed or cut off.

    Args:
        records: all entries, in any order.
        anchors: heads written down elsewhere; only they tell of an end that was cut off or rewritten.
    """
    ordered = sorted(records, key=lambda record: record.number)
    reader = _Reader()
    for record in ordered:
        reader.take(record)
    reader.chain.findings.extend(_against(ordered, anchors))
    return reader.chain


def _against(records: Sequence[Record], anchors: Iterable[Anchor]) -> Iterable[str]:
    found = {record.number: entry_hash(record.text) for record in records}
    hashes = set(found.values())
    for anchor in anchors:
        if anchor.hash in hashes:
            continue
        if anchor.number in found:
            yield _altered(anchor.number, found[anchor.number], f"{anchor.where} names {anchor.hash[:_SHORT]}")
        else:
            name = "an entry" if anchor.number is None else f"entry {anchor.number}"
            yield f"{name} ({anchor.hash[:_SHORT]}), which {anchor.where} names, is gone: it was cut off or altered"


def counting(records: Iterable[Record]) -> set[int]:
    """Return the numbers of the entries that count."""
    return {numbered.number for numbered in chain(records).entries}


def verify_chain(records: Iterable[Record], anchors: Iterable[Anchor] = ()) -> list[Numbered]:
    """Return the counting entries of a ledger that is whole.

    Raises:
        RegistryError: an entry was altered, removed or cut off; each is named.
    """
    result = chain(records, anchors)
    if result.findings:
        raise RegistryError(
            f"the ledger must be whole, found: {'; '.join(result.findings)} "
            "(registered model student-ledger): restore it from a backup; nothing is promoted until then"
        )
    return result.entries


def about(entries: Iterable[Numbered], version: int | None = None, *, model: str = "student") -> list[Numbered]:
    """Return the entries about a registered model, or about one version of it: numbers alone tell no models apart.

    Args:
        entries: counting entries in order.
        version: ``None``: every version.
        model: the registered model.
    """
    return [one for one in entries if one.entry.model == model and version in (None, one.entry.version)]


def head(entries: Sequence[Numbered]) -> Numbered | None:
    """Return the last counting entry, whose number and hash are anchored elsewhere."""
    return entries[-1] if entries else None


def following(entry: Entry, records: Iterable[Record], anchors: Iterable[Anchor] = ()) -> str:
    """Return the text of ``entry`` as the next one, or of the one there is with its key.

    Args:
        entry: the new entry; its ``previous`` is set here, unless it names the head that it was decided at.
        records: all entries as read just now.
        anchors: heads written down elsewhere.

    Raises:
        RegistryError: the ledger is not whole, or the champion is not the one that was to be replaced.
    """
    entries = verify_chain(records, anchors)
    for numbered in entries:
        if numbered.entry.key == entry.key:
            return numbered.entry.text
    champion = state(entries, model=entry.model).champion
    if entry.moves and entry.replaces != champion:
        raise RegistryError(
            f"version {entry.version} must replace the champion, which is {_version(champion)}; it was decided against "
            f"{_version(entry.replaces)} (ledger entry {entry.key}): another was first, decide again"
        )
    last = head(entries)
    if entry.previous is not None and (last is None or last.hash != entry.previous):
        raise RegistryError(
            f"{entry.kind.replace('_', ' ')} of version {entry.version} must follow the entry that it was decided at "
            f"({entry.previous[:_SHORT]}), found the ledger further on: another was first, look and decide again"
        )
    return entry.model_copy(update={"previous": last.hash if last else None}).text


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
