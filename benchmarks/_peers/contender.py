"""What every contender shares, in either environment: its case, its answer, the held-out targets, the clock.

Of Stillhouse this imports the evaluator alone, which needs NumPy and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.evaluate.metrics import ranking_metrics
from stillhouse.evaluate.ranking import rank_targets

__all__ = ["Course", "Events", "answer", "case"]

_BATCH = 512


def case() -> dict[str, Any]:
    """Return what this process is asked; its own arguments are hidden from libraries that read them."""
    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return asked


def answer(values: dict[str, Any]) -> None:
    """Write what was found."""
    Path(sys.argv[2]).write_text(json.dumps(values), encoding="utf-8")


class Events:
    """The prepared events (`stillhouse.data.sequences`) as plain arrays."""

    def __init__(self, folder: Path, length: int) -> None:
        """Read the arrays in ``folder`` for models that look ``length`` events back."""
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("items", "offsets", "train_length", "test")}
        self.items, self.offsets = arrays["items"].astype(np.int64), arrays["offsets"].astype(np.int64)
        self.train_length = arrays["train_length"].astype(np.int64)
        self.test = arrays["test"].astype(np.int64)
        """(user, events before, item), int64 [n, 3]."""
        self.n_items = int(json.loads((folder / "sequences.json").read_text(encoding="utf-8"))["n_items"])
        self.length = length

    @property
    def sequences(self) -> int:
        """Return the users that a model trains on: those with two training events or more."""
        return int((self.train_length >= 2).sum())

    @property
    def positions(self) -> int:
        """Return the training targets that stand in the last ``length`` + 1 training events of each user."""
        return int(np.minimum(np.maximum(self.train_length - 1, 0), self.length).sum())

    @property
    def all_positions(self) -> int:
        """Return the training targets of whole histories."""
        return int(np.maximum(self.train_length - 1, 0).sum())

    def rows(self, *, held_out: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return user, item and place of each training event; with ``held_out``, of all before the test target."""
        stop = self.train_length.copy()
        if held_out:
            stop[self.test[:, 0]] = self.test[:, 1]
        users = np.repeat(np.arange(len(stop)), stop)
        place = np.arange(len(users)) - np.repeat(np.cumsum(stop) - stop, stop)
        return users, self.items[self.offsets[users] + place], place

    def quality(self, score: Callable[[slice], NDArray[np.floating]]) -> dict[str, float]:
        """Return NDCG@10 and HR@10 of the test targets: full ranking, seen items filtered, by our evaluator.

        Args:
            score: rows of `test` → scores float [n, n_items + 1].
        """
        ranks = np.empty(len(self.test), np.int64)
        for first in range(0, len(self.test), _BATCH):
            rows = slice(first, min(first + _BATCH, len(self.test)))
            ranks[rows] = rank_targets(score(rows), self.test[rows, 2], self._seen(rows))
        found = ranking_metrics(self.test[:, 0], ranks, (10,), self.n_items)
        return {name: float(found[name] or 0.0) for name in ("ndcg_at_10", "hr_at_10")}

    def _seen(self, rows: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        users, lengths = self.test[rows, 0], self.test[rows, 1]
        row = np.repeat(np.arange(len(users)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return row, self.items[self.offsets[users][row] + place]


class Course:
    """How a training goes: seconds of training, and quality after each epoch, which is off the clock."""

    def __init__(self, asked: dict[str, Any], measure: Callable[[], dict[str, float]] | None) -> None:
        """Start the clock.

        Args:
            asked: ``epochs`` and ``seconds`` are where the training has to end, whichever comes first.
            measure: gives the quality now; ``None``: speed alone.
        """
        self.asked, self.measure = asked, measure
        self.epochs: list[dict[str, float]] = []
        self._spent = 0.0
        self.begin()

    def begin(self) -> None:
        """Take what has passed since the last mark off the clock."""
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._spent + time.perf_counter() - self._since

    @property
    def over(self) -> bool:
        """Return whether the training has to end."""
        return len(self.epochs) >= self.asked["epochs"] or self.seconds >= self.asked["seconds"]

    def mark(self, **facts: float) -> None:
        """Note that an epoch (or a part of one) is over, with what is known of it."""
        self._spent, cpu = self.seconds, time.process_time() - self._cpu_since
        before = self.epochs[-1]["at"] if self.epochs else 0.0
        found = {"at": self._spent, "seconds": self._spent - before, "cpu_seconds": cpu, **facts}
        self.epochs.append(found | (self.measure() if self.measure else {}))
        print(self.epochs[-1], flush=True)
        self.begin()
