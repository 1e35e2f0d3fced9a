"""Which item and which user stands behind an index, and what is known of each.

Index 0 of the items is padding and *unknown*; items count from 1, users from
0. What had an index last night keeps it for good, new ids are appended: a model
of any night can read the histories of every later one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillhouse.data.files import damaged, numbers_of, read_json, read_parquet, write_json, write_parquet
from stillhouse.errors import DataError

__all__ = ["UNKNOWN_ITEM", "UNKNOWN_USER", "Vocabulary", "extended", "item_digest"]

#: Index of padding, and of every item that the vocabulary does not know.
UNKNOWN_ITEM = 0
#: Index of every user that the vocabulary does not know.
UNKNOWN_USER = -1

_ITEMS = pa.schema(
    [
        ("item_index", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("category", pa.string()),
        ("popularity", pa.int64()),
    ]
)
_USERS = pa.schema([("user_index", pa.int32()), ("user_id", pa.string())])


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The items and users of one night, by index."""

    item_ids: list[str]
    """Item id by item index; index 0 is ``""``."""
    user_ids: list[str]
    """User id by user index, from 0."""
    popularity: npt.NDArray[np.int64]
    """Training rows of each item, int64 [n_items + 1]; 0 at index 0."""
    titles: list[str | None]
    """Title by item index; ``None`` at index 0 and where there is none."""
    texts: list[str | None]
    """Longer text by item index, as `titles`."""
    categories: list[str | None]
    """Categories by item index, several joined by ``|``, as `titles`."""
    as_of: str | None = None
    """End of the night's events, ISO 8601 with its offset."""
    has_items: bool = False
    """Whether a table of items was ever given, tonight or before."""

    @property
    def n_items(self) -> int:
        """Number of items, index 0 not counted."""
        return len(self.item_ids) - 1

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the item ids in order of their index, as 64 hexadecimal digits."""
        return item_digest(self.item_ids[1:])

    @cached_property
    def _items(self) -> Mapping[str, int]:
        return {item: index for index, item in enumerate(self.item_ids) if index != UNKNOWN_ITEM}

    @cached_property
    def _users(self) -> Mapping[str, int]:
        return {user: index for index, user in enumerate(self.user_ids)}

    def item_index(self, item_id: str) -> int:
        """Return the index of ``item_id`` (≥ 1), or 0 where it is unknown."""
        return self._items.get(item_id, UNKNOWN_ITEM)

    def user_index(self, user_id: str) -> int:
        """Return the index of ``user_id`` (≥ 0), or -1 where it is unknown."""
        return self._users.get(user_id, UNKNOWN_USER)

    def item_indices(self, item_ids: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the index of each id, int32 [n]; 0 where an id is unknown."""
        return np.fromiter((self.item_index(item) for item in item_ids), dtype=np.int32)

    def user_indices(self, user_ids: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the index of each id, int32 [n]; -1 where an id is unknown."""
        return np.fromiter((self.user_index(user) for user in user_ids), dtype=np.int32)

    @classmethod
    def load(cls, directory: Path) -> Vocabulary:
        """Read the vocabulary in ``directory``.

        Raises:
            DataError: its files are missing, damaged or do not belong together.
        """
        try:
            header: dict[str, Any] = read_json(directory / "vocabulary.json")
            items = read_parquet(directory / "items.parquet", _ITEMS)
            users = read_parquet(directory / "users.parquet", _USERS)
        except FileNotFoundError as error:
            name = Path(str(error.filename)).name if error.filename else str(error)
            raise DataError(
                f"a vocabulary must hold {name}, found none in {directory}: run the stage prepare again"
            ) from None
        except (KeyError, OSError, ValueError) as error:  # Arrow's own are among them
            raise damaged("a vocabulary", directory, error) from None
        vocabulary = cls(
            item_ids=["", *items["item_id"].to_pylist()],
            user_ids=users["user_id"].to_pylist(),
            popularity=np.append(np.zeros(1, np.int64), numbers_of(items["popularity"])),
            titles=[None, *items["title"].to_pylist()],
            texts=[None, *items["text"].to_pylist()],
            categories=[None, *items["category"].to_pylist()],
        )
        try:
            vocabulary = replace(vocabulary, as_of=header["as_of"], has_items=header["has_items"])
            described = header["digest"], header["n_users"]
        except (KeyError, TypeError) as error:
            raise damaged("a vocabulary", directory, error) from None
        if (vocabulary.digest, vocabulary.n_users) != described:
            raise DataError(
                f"items.parquet and users.parquet must be those of vocabulary.json, found others in {directory}: "
                "run the stage prepare again"
            )
        return vocabulary

    def save(self, directory: Path) -> None:
        """Write ``items.parquet``, ``users.parquet`` and ``vocabulary.json`` into ``directory``.

        Equal vocabularies give equal bytes. The folder is made where it is not there.
        """
        directory.mkdir(parents=True, exist_ok=True)
        items = {
            "item_index": np.arange(1, self.n_items + 1, dtype=np.int32),
            "item_id": self.item_ids[1:],
            "title": self.titles[1:],
            "text": self.texts[1:],
            "category": self.categories[1:],
            "popularity": self.popularity[1:],
        }
        users = {"user_index": np.arange(self.n_users, dtype=np.int32), "user_id": self.user_ids}
        write_parquet(directory / "items.parquet", pa.table(items, schema=_ITEMS))
        write_parquet(directory / "users.parquet", pa.table(users, schema=_USERS))
        write_json(directory / "vocabulary.json", self._header())

    def _header(self) -> dict[str, Any]:
        return {
            "n_items": self.n_items,
            "n_users": self.n_users,
            "digest": self.digest,
            "as_of": self.as_of,
            "has_items": self.has_items,
        }


def item_digest(item_ids: Sequence[str]) -> str:
    """Return the SHA-256 that names a vocabulary: of its item ids in order, as compact JSON.

    Args:
        item_ids: ids from item index 1 on, without the padding.

    >>> item_digest(["a", "b"]) == item_digest(["b", "a"])
    False
    """
    text = json.dumps(list(item_ids), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def extended(known: Sequence[str], found: Iterable[str]) -> list[str]:
    """Return ``known`` as it is, followed by those of ``found`` that are not in it.

    Args:
        known: last night's ids in order of their index.
        found: tonight's ids in the order in which new ones are to be appended.

    >>> extended(["b", "a"], ["c", "a", "d", "c"])
    ['b', 'a', 'c', 'd']
    """
    return list(dict.fromkeys([*known, *found]))
