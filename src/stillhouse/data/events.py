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

from stillhouse.data.columns import CODED_TEXT, Joined, join
from stillhouse.data.files import read_json
from stillhouse.data.order import is_rising, stable_order
from stillhouse.data.threads import each
from stillhouse.errors import DataError

__all__ = ["Events", "chronological", "read_events", "without_repeats"]

_TEXT = ("user_id", "item_id", "event")
_SCHEMA = pa.schema([*((name, CODED_TEXT) for name in _TEXT), ("time", pa.int64()), ("rating", pa.float64())])


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
        event_weights: event type → weight, >= 0.

    Raises:
        DataError: there is no row, an id or a time is null, or an event type has no weight.
    """
    header: Mapping[str, Any] = read_json(accepted / "accepted.json")
    files = sorted((accepted / "interactions").glob("*.parquet"))
    if not files:
        raise DataError(f"accepted rows must hold at least one day, found none in {accepted}: look at the quarantine")
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    schema = pa.schema([field for field in _SCHEMA if field.name != "rating" or min_rating is not None])
    found = join(each(lambda file: _read_file(file, schema.names), files), schema, rows)
    users, items, event = (found.coded[name] for name in _TEXT)
    times = found.plain["time"]
    for name, missing in (("user_id", users.missing), ("item_id", items.missing), ("time", times.null_count)):
        if missing:
            raise DataError(
                f"every accepted row must have a {name}, found {missing} without in {accepted}: "
                "run the stage validate again"
            )
    liked = _liked(found, min_rating)
    events = Events(
        users=users.codes[liked],
        items=items.codes[liked],
        times=times.to_numpy()[liked],
        weights=_weights(event.codes[liked], event.names.to_pylist(), event_weights),
        user_ids=users.names.to_pylist(),
        item_ids=items.names.to_pylist(),
        order=header["order"],
    )
    return replace(events, below_rating=rows - len(events))


def _liked(found: Joined, min_rating: float | None) -> npt.NDArray[np.bool_] | slice:
    """Return the rows that are not rated too low: a mask, or all of them."""
    if min_rating is None:
        return slice(None)
    high = pc.fill_null(pc.greater_equal(found.plain["rating"], min_rating), True)
    mask: npt.NDArray[np.bool_] = high.to_numpy(zero_copy_only=False)
    return mask


def _read_file(path: Path, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(path, read_dictionary=list(_TEXT)) as file:
        return file.read(columns=columns, use_threads=False)  # other files are read meanwhile


def _weights(
    codes: npt.NDArray[np.int32], names: list[str], event_weights: Mapping[str, float]
) -> npt.NDArray[np.float32]:
    """Return the weight of each row's event type, given as a code into ``names``."""
    used = {names[code] for code in np.flatnonzero(np.bincount(codes + 1)[1:])}
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
    if is_rising(events.times):  # day files, each in order of time: the usual case
        return events.take(stable_order(events.users))
    by_time = stable_order(events.times)
    return events.take(by_time[stable_order(events.users[by_time])])


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
    order = stable_order(pairs)
    starts = _starts(pairs[order])
    del pairs  # a gigabyte's tenth on ten million rows
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


def _starts(grouped: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where each run of equal values starts."""
    return np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
