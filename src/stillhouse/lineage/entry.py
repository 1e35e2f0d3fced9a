"""One entry of the ledger: what it says, and the bytes that are hashed and stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["Anchor", "Entry", "Kind", "Numbered", "Record", "entry_hash"]

Kind = Literal["registered", "refused", "awaiting", "promoted", "rejected", "rolled_back"]


class Entry(Frozen):
    """One thing that happened to a registered model, and who let it happen."""

    format: Literal[1] = 1
    model: str = "student"
    """Registered model that the entry is about: ``student``, or ``teacher``, of which there is but ``registered``."""
    kind: Kind
    """``registered``; ``refused`` by the gate; ``awaiting`` a person; ``promoted``; ``rejected`` by a
    person; ``rolled_back`` to."""
    key: str = pydantic.Field(min_length=1)
    """What makes the act one act: an entry whose key is there already is not written again."""
    night: str | None
    """The night that it belongs to; ``None`` for what a person does later."""
    version: int = pydantic.Field(ge=1)
    """The registered version that it is about; for ``rolled_back``, the one returned to."""
    name: str
    """The student's name in ``params.yaml``; of a teacher, ``teacher``."""
    package: str
    """SHA-256 of the package, of a teacher of its checkpoint (`stillhouse.data.files.sha256_tree`)."""
    statement: str | None = None
    """SHA-256 of ``lineage.json``."""
    verdict: str | None = None
    """SHA-256 of the gate's decision."""
    replaces: int | None = None
    """For ``promoted``, ``rolled_back`` and ``awaiting``: the champion that the decision was made against."""
    reason: str
    actor: str
    """Who: ``gate``, of a teacher ``check_teacher``, or a person's name."""
    time: str
    """ISO 8601 with offset."""
    previous: str | None = None
    """Hash of the counting entry before; ``None`` for the first."""

    @pydantic.field_validator("time")
    @classmethod
    def _zoned(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("time must have an offset")
        return value

    @property
    def text(self) -> str:
        """The entry as canonical JSON: sorted keys, no spaces; what is hashed and stored."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def moves(self) -> bool:
        """Whether it changes the champion."""
        return self.kind in ("promoted", "rolled_back")


class Record(Protocol):
    """An entry as some storage holds it."""

    @property
    def number(self) -> int:
        """Handed out by the storage, rising."""

    @property
    def text(self) -> str:
        """Canonical JSON."""

    @property
    def digest(self) -> str:
        """SHA-256 of the text as its writer recorded it."""


@dataclass(frozen=True)
class Numbered:
    """A counting entry with its number and hash."""

    number: int
    hash: str
    entry: Entry


@dataclass(frozen=True)
class Anchor:
    """The ledger's head as it was written down somewhere else."""

    hash: str
    where: str
    """Such as ``git tag night/2026-03-12/closed``."""
    number: int | None = None
    """The entry's number, where it was written down too."""


def entry_hash(text: str) -> str:
    """Return the SHA-256 of an entry's canonical text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
