"""Accepted rows as arrays: who did what, when, and how much it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillhouse.data.files import read_json
from stillhouse.errors import DataError

__all__ = ["Events", "chronological", "read_events", "without_repeats"]

_COLUMNS = ("user_id", "item_id", "time", "rating", "event")
_TEXT = ("user_id", "item_id", "event")


@dataclass(frozen=True, eq=False)
class Events:
    """Rows of interactions, column by column; ids stand behind codes that mean something in this object alone."""

    users: npt.NDArray[np.int32]
    """Code of each row's user: `user_ids` has the id, int32 [n]."""
    items: npt.NDArray[np.int32]
    """Code of each row's item: `item_ids` has the id, int32 [n]."""
    times: npt.NDArray[np.int64]
    """Seconds since the epoch, or the position, int64 [n]."""
    weights: npt.NDArray[np.float32]
    """Weight of the row's event type, float32 [n]; 1 where it has none."""
    user_ids: list[str]
    item_ids: list[str]
    order: Literal["timestamp", "position"]
    """What `times` holds."""
    below_rating: int = 0
    """Rows that were left out because they are rated too low."""

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: npt.NDArray[Any]) -> Events:
        """Return these rows, given as indices or as a mask, in that order."""
        return replace(
            self,
            users=self.users[rows],
            items=self.items[rows],
            times=self.times[rows],
            weights=self.weights[rows],
        )


def read_events(accepted: Path, *, min_rating: float | None, event_weights: Mapping[str, float]) -> Events:
    """Read the accepted rows: day files in the order of their names, rows in the order of each file.

    Args:
        accepted: the folder that the stage validate wrote.
        min_rating: rows rated lower are left out; rows without a rating stay. ``None`` keeps all.
        event_weights: event type → weight, > 0.

    Raises:
        DataError: there is no row, an id or a time is null, or an event type has no weight.
    """
    header: Mapping[str, Any] = read_json(accepted / "accepted.json")
    files = sorted((accepted / "interactions").glob("*.parquet"))
    if not files:
        raise DataError(f"accepted rows must hold at least one day, found none in {accepted}: look at the quarantine")
    table = pa.concat_tables(
        [pq.read_table(file, columns=list(_COLUMNS), read_dictionary=list(_TEXT)) for file in files]
    )
    for name in ("user_id", "item_id", "time"):
        if table[name].null_count:
            raise DataError(
                f"every accepted row must have a {name}, found {table[name].null_count} without in {accepted}: "
                "run the stage validate again"
            )
    rows = table.num_rows
    if min_rating is not None:
        table = table.filter(pc.fill_null(pc.greater_equal(table["rating"], min_rating), True))
    table = table.drop_columns(["rating"]).unify_dictionaries()
    users, user_ids = _codes(table["user_id"])
    items, item_ids = _codes(table["item_id"])
    return Events(
        users=users,
        items=items,
        times=table["time"].to_numpy(),
        weights=_weights(table["event"], event_weights),
        user_ids=user_ids,
        item_ids=item_ids,
        order=header["order"],
        below_rating=rows - table.num_rows,
    )


def _codes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return codes (-1 for null) and the text behind them; the chunks must share one dictionary."""
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.zeros(0, np.int32), []
    codes = np.concatenate([pc.fill_null(chunk.indices, -1).to_numpy() for chunk in chunks])
    return codes.astype(np.int32, copy=False), chunks[0].dictionary.to_pylist()


def _weights(column: pa.ChunkedArray, event_weights: Mapping[str, float]) -> npt.NDArray[np.float32]:
    codes, names = _codes(column)
    used = {names[code] for code in np.flatnonzero(np.bincount(codes[codes >= 0]))}
    if unknown := sorted(used - set(event_weights)):
        raise DataError(
            f"every event type must have a weight, found none for {', '.join(map(repr, unknown[:5]))}: "
            "add it (params.yaml: event_weights)"
        )
    # A row without an event type has code -1 and takes the last entry.
    table = np.array([*(event_weights.get(name, 0.0) for name in names), 1.0], np.float32)
    return table[codes]


def chronological(events: Events) -> Events:
    """Return the rows grouped by user code and, within a user, by time; equal times keep their order."""
    return events.take(np.lexsort((events.times, events.users)))


def without_repeats(events: Events, until: int | None) -> Events:
    """Keep the first of each user's rows with one item.

    The row that is kept takes the highest weight among that user's rows with
    that item up to ``until``: a view that led to a purchase counts as the
    purchase. A row after ``until`` lends its weight to none but itself.

    Args:
        events: rows in chronological order.
        until: start of the time window; ``None``: there is no window.
    """
    if not len(events):
        return events
    pairs = events.users.astype(np.int64) * len(events.item_ids) + events.items
    order = np.argsort(pairs, kind="stable")
    grouped = pairs[order]
    starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
    candidates = events.weights[order]
    if until is not None:
        candidates = np.where(events.times[order] <= until, candidates, np.float32(0))
    first = order[starts]
    highest = np.maximum.reduceat(candidates, starts)
    weights = events.weights.copy()
    # Nothing before the window: the row is a target alone, and keeps its own weight.
    weights[first] = np.where(highest > 0, highest, weights[first])
    kept = np.zeros(len(events), bool)
    kept[first] = True
    return replace(events, weights=weights).take(kept)
