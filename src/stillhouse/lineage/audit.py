"""What an audit finds: a tree of links, each with the hash that names it and what re-checking it gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Link", "State", "altered", "missing", "noted", "verified"]

State = Literal["verified", "missing", "altered", "noted"]


@dataclass(frozen=True)
class Link:
    """One thing that a student came from."""

    name: str
    state: State
    """``noted``: said, and no fault: an unsigned record, a first night without an ancestor, unpinned libraries."""
    says: str
    """What was checked, or what is wrong, in one line."""
    hash: str | None = None
    """What the record names its content by."""
    below: tuple[Link, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether neither this nor anything below it is missing or altered."""
        return not any(link.state in ("missing", "altered") for link in self.walk())

    def walk(self) -> Iterator[Link]:
        """Give this link and all below it, from the top."""
        yield self
        for link in self.below:
            yield from link.walk()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain: dict[str, Any] = {"name": self.name, "state": self.state, "says": self.says, "hash": self.hash}
        return plain | ({"below": [link.as_dict() for link in self.below]} if self.below else {})


def verified(name: str, says: str, hash: str | None = None, below: tuple[Link, ...] = ()) -> Link:  # noqa: A002
    """Return a link that was re-checked and is what the record says."""
    return Link(name, "verified", says, hash, below)


def missing(name: str, says: str, hash: str | None = None, below: tuple[Link, ...] = ()) -> Link:  # noqa: A002
    """Return a link whose content is nowhere to be found."""
    return Link(name, "missing", says, hash, below)


def altered(name: str, says: str, hash: str | None = None, below: tuple[Link, ...] = ()) -> Link:  # noqa: A002
    """Return a link whose content is not what the record says."""
    return Link(name, "altered", says, hash, below)


def noted(name: str, says: str, hash: str | None = None, below: tuple[Link, ...] = ()) -> Link:  # noqa: A002
    """Return a link that is said and is no fault."""
    return Link(name, "noted", says, hash, below)
