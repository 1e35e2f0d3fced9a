"""Answers requests with a packaged student: item ids in, items with their titles out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillhouse.data.files import sha256_tree
from stillhouse.errors import ServingError, one_line
from stillhouse.serve.stillhouse_pyfunc import PERSONAL, PackagedStudent

__all__ = ["Answer", "Recommendation", "Student"]


@dataclass(frozen=True)
class Recommendation:
    """One item of a list."""

    item_id: str
    score: float
    """Unbounded for a personal answer; the item's share of the training rows for a popular one."""
    title: str | None
    category: str | None
    """Several categories are joined by ``|``."""


@dataclass(frozen=True)
class Answer:
    """A list, and what it rests on."""

    items: tuple[Recommendation, ...]
    """Best first."""
    kind: Literal["personal", "popular"]
    """``popular``: nothing was known of this person, so the most popular items were given."""
    note: str
    """What a person should know about this answer; "" where there is nothing to say."""
    unknown: int
    """Items of the history that the student does not know; they were left out."""


class Student:
    """One package, loaded to answer."""

    def __init__(self, packaged: PackagedStudent) -> None:
        self.packaged = packaged

    @classmethod
    def load(cls, directory: Path, *, threads: int = 1, digest: str | None = None) -> Student:
        """Load the package in ``directory``.

        Args:
            directory: a package.
            threads: threads of ONNX Runtime.
            digest: what `stillhouse.data.files.sha256_tree` must give for the directory
                (the ledger's hash); it is checked before any file is opened as a model.

        Raises:
            ServingError: the digest is another one, or the package is damaged.
        """
        if digest is not None and (found := sha256_tree(directory)) != digest:
            raise ServingError(
                f"a package must be the one that was recorded (sha256 {digest[:12]}), found {found[:12]} in "
                f"{directory}: it was changed after it was let through; restore it from the DVC remote"
            )
        try:
            return cls(PackagedStudent(directory, threads))
        except ValueError as error:
            raise ServingError(one_line(str(error))) from error

    def recommend(self, history: Sequence[str], k: int = 10) -> Answer:
        """Return the ``k`` best items after ``history``.

        Items of the history are not recommended again, unless the student was made
        where people take items again.

        Args:
            history: item ids, oldest first; unknown ones are left out and counted. Where
                none is left the most popular items are given, and the answer says so.
            k: how many, ≥ 1; more than there are items gives all of them.

        Raises:
            ServingError: ``k`` is below 1 or no whole number, or ``history`` is no list of ids.
        """
        ids = _checked(history, k)
        known = self.packaged.indices(ids)
        kind, indices, scores = self.packaged.answer(known, k)
        items = tuple(self._item(int(index), float(score)) for index, score in zip(indices, scores, strict=True))
        unknown = len(ids) - len(known)
        personal = kind == PERSONAL
        return Answer(items, "personal" if personal else "popular", _note(personal, len(ids), unknown), unknown)

    def _item(self, index: int, score: float) -> Recommendation:
        packaged = self.packaged
        return Recommendation(packaged.item_ids[index], score, packaged.titles[index], packaged.categories[index])


def _checked(history: Sequence[str], k: int) -> list[str]:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ServingError(f"k must be a whole number of at least 1, got {k!r}")
    if isinstance(history, str | bytes):
        raise ServingError(f"a history must be a list of item ids, got the text {one_line(repr(history))}")
    if not isinstance(history, Iterable):
        raise ServingError(f"a history must be a list of item ids, got {history!r}")
    ids = list(history)  # what is handed over one by one can be looked at once
    for item in ids:
        if not isinstance(item, str):
            raise ServingError(f"an item id must be text, got {item!r} of type {type(item).__name__} in the history")
    return ids


def _note(personal: bool, given: int, unknown: int) -> str:
    if personal:
        return f"{unknown} of {given} items of the history are unknown and were left out" if unknown else ""
    why = f"none of the {given} items of the history is known" if given else "the history is empty"
    return f"{why}: these are the most popular items, not a personal answer"
