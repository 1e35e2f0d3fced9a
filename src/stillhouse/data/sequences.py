"""Every user's events in order, as flat arrays that are memory-mapped.

A user's events stand one after the other in `Sequences.items`; `offsets` says
where each user begins. The first `train_length` events of a user are training
rows. What is held out stands in tables of targets: who, how many of the user's
events come before, and which item it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stillhouse.data.files import damaged, read_json, write_json
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError

__all__ = ["SPLITS", "Sequences", "Split"]

Split = Literal["valid", "test", "window"]
#: The tables of held-out targets: leave-one-out's two, and the time window's.
SPLITS: tuple[Split, ...] = ("valid", "test", "window")

_ARRAYS: dict[str, type[np.generic]] = {
    "items": np.int32,
    "times": np.int64,
    "weights": np.float32,
    "offsets": np.int64,
    "train_length": np.int32,
    "valid": np.int64,
    "test": np.int64,
    "window": np.int64,
}


@dataclass(frozen=True, eq=False)
class Sequences:
    """One night's histories and its held-out targets; users by user index, items by item index."""

    items: npt.NDArray[np.int32]
    """Item of each event, ≥ 1, int32 [n_events]."""
    times: npt.NDArray[np.int64]
    """Time of each event, never falling within a user, int64 [n_events]: seconds, or the position."""
    weights: npt.NDArray[np.float32]
    """Weight of each event's loss as a target, float32 [n_events]."""
    offsets: npt.NDArray[np.int64]
    """First event of each user and the end, int64 [n_users + 1]."""
    train_length: npt.NDArray[np.int32]
    """How many first events of each user are training rows, int32 [n_users]; 0: none."""
    valid: npt.NDArray[np.int64]
    """Targets (user_index, history_length, item_index), int64 [n, 3]; item 0 is a miss."""
    test: npt.NDArray[np.int64]
    """As `valid`: leave-one-out's test targets."""
    window: npt.NDArray[np.int64]
    """As `valid`: the targets of the time window; a user may have several."""
    n_items: int
    """Items of the vocabulary; indices run from 1 to ``n_items``."""
    vocabulary: str
    """Digest of the vocabulary that the indices belong to."""
    repeat_items: bool
    """Whether a user's later events with an item stand here too."""
    order: Literal["timestamp", "position"]
    """What `times` holds."""
    window_start: int | None
    """Window targets are later than this; ``None``: no window."""
    window_end: int | None
    """Window targets are not later than this; ``None``: no window."""
    window_reason: str
    """Why the window starts there, or why there is none."""

    @property
    def n_users(self) -> int:
        """Number of users, those without events included."""
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events of all users."""
        return len(self.items)

    @property
    def training_rows(self) -> int:
        """Number of events that are training rows."""
        return int(self.train_length.sum(dtype=np.int64))

    def history(self, user_index: int, length: int) -> npt.NDArray[np.int32]:
        """Return the first ``length`` items of a user, oldest first, int32 [length]: a view."""
        start = self.offsets[user_index]
        return self.items[start : start + length]

    def padded(
        self, users: npt.NDArray[np.integer[Any]], lengths: npt.NDArray[np.integer[Any]], width: int
    ) -> npt.NDArray[np.int64]:
        """Return the most recent ``width`` items of each history, oldest first, zeros on the right.

        Args:
            users: user indices, [n].
            lengths: length of each history: the first so many events of the user, [n].
            width: columns of the result, ≥ 1.

        Returns:
            int64 [n, width]; a history of length 0 is a row of zeros.
        """
        lengths = np.asarray(lengths, np.int64)
        taken = np.minimum(lengths, width)
        first = self.offsets[np.asarray(users, np.int64)] + lengths - taken
        steps = np.arange(width, dtype=np.int64)
        real = steps < taken[:, None]
        rows = np.zeros((len(lengths), width), np.int64)
        rows[real] = self.items[(first[:, None] + steps)[real]]
        return rows

    def targets(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the held-out targets of ``split``: (user_index, history_length, item_index), int64 [n, 3]."""
        tables = {"valid": self.valid, "test": self.test, "window": self.window}
        return tables[split]

    def require(self, vocabulary: Vocabulary) -> None:
        """Refuse a vocabulary that is not the one these indices belong to.

        Raises:
            DataError: the digests or the numbers of users differ.
        """
        if (vocabulary.digest, vocabulary.n_users) != (self.vocabulary, self.n_users):
            raise DataError(
                f"sequences and vocabulary must be of one night, found vocabulary {vocabulary.digest[:12]} with "
                f"{vocabulary.n_users} users and sequences of {self.vocabulary[:12]} with {self.n_users}: "
                "run the stage prepare again"
            )

    @classmethod
    def open(cls, directory: Path) -> Sequences:
        """Map the sequences in ``directory`` into memory; nothing is read until it is used.

        Raises:
            DataError: a file is missing or damaged, or its length is not what ``sequences.json`` says.
        """
        try:
            header: dict[str, Any] = read_json(directory / "sequences.json")
            arrays: dict[str, Any] = {
                name: np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
            }
        except FileNotFoundError as error:
            raise DataError(
                f"sequences must hold {Path(str(error.filename)).name}, found none in {directory}: "
                "run the stage prepare again"
            ) from None
        except (OSError, EOFError, ValueError) as error:
            raise damaged("sequences", directory, error) from None
        found = {
            "n_events": len(arrays["items"]),
            "n_users": len(arrays["offsets"]) - 1,
        }
        try:
            expected = {name: header.pop(name) for name in found}
            sequences = cls(**arrays, **header)
        except (AttributeError, KeyError, TypeError) as error:
            raise damaged("sequences", directory, error) from None
        if found != expected:
            raise DataError(
                f"the arrays of sequences must be as long as sequences.json says ({expected}), found {found} "
                f"in {directory}: run the stage prepare again"
            )
        return sequences

    def save(self, directory: Path) -> None:
        """Write the arrays and ``sequences.json`` into ``directory``; equal sequences give equal bytes."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, dtype in _ARRAYS.items():
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            np.save(directory / f"{name}.npy", array, allow_pickle=False)
        write_json(directory / "sequences.json", self._header())

    def _header(self) -> dict[str, Any]:
        return {
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_events": self.n_events,
            "vocabulary": self.vocabulary,
            "repeat_items": self.repeat_items,
            "order": self.order,
            "window_start": self.window_start,
            "window_end": self.window_end,
            "window_reason": self.window_reason,
        }
