"""From events and their splits to the vocabulary and the sequences of a night."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillhouse.data.events import Events
from stillhouse.data.files import read_parquet
from stillhouse.data.order import stable_order
from stillhouse.data.sequences import SPLITS, Sequences, Split
from stillhouse.data.split import Cut, Window
from stillhouse.data.vocabulary import UNKNOWN_ITEM, Vocabulary, extended

__all__ = ["Details", "assemble_sequences", "assemble_vocabulary", "read_details"]

#: Item id → title, text, categories.
Details = Mapping[str, tuple[str | None, str | None, str | None]]

_DETAILS = pa.schema([(name, pa.string()) for name in ("item_id", "title", "text", "category")])

_LAST = np.iinfo(np.int64).max


def read_details(accepted: Path) -> Details | None:
    """Return what the accepted items table says of each item (an id's first row); ``None``: there is no table."""
    path = accepted / "items.parquet"
    if not path.is_file():
        return None
    columns = read_parquet(path, _DETAILS).to_pydict()
    rows = list(zip(columns["title"], columns["text"], columns["category"], strict=True))
    return dict(zip(reversed(columns["item_id"]), reversed(rows), strict=True))


def assemble_vocabulary(
    events: Events,
    trained: npt.NDArray[np.bool_],
    *,
    previous: Vocabulary | None,
    details: Details | None,
    as_of: str,
) -> Vocabulary:
    """Return last night's vocabulary, extended by tonight's items with training rows and by tonight's users.

    New items come in the order of their first training row, new users of
    theirs; users without training rows come last, by their first event. Equal
    times are ordered by id, so that the order of rows decides nothing.

    Args:
        events: tonight's rows in chronological order.
        trained: which of them are training rows that the k-core keeps, bool [n].
        previous: last night's vocabulary; ``None`` on a first night.
        details: what the table of items says, or ``None``.
        as_of: end of the night's events, ISO 8601.
    """
    before = previous or _EMPTY
    item_first = _first_times(events.items[trained], events.times[trained], len(events.item_ids))
    item_order = _by_first(events.item_ids, item_first, np.zeros(len(item_first), np.int64))
    any_first = _first_times(events.users, events.times, len(events.user_ids))
    row_first = _first_times(events.users[trained], events.times[trained], len(events.user_ids))
    takes_part = row_first < _LAST
    user_order = _by_first(events.user_ids, np.where(takes_part, row_first, any_first), (~takes_part).astype(np.int64))
    item_ids = extended(before.item_ids, item_order)
    rows = _details(item_ids, before, details)
    vocabulary = Vocabulary(
        item_ids=item_ids,
        user_ids=extended(before.user_ids, user_order),
        popularity=np.zeros(len(item_ids), np.int64),
        titles=[row[0] for row in rows],
        texts=[row[1] for row in rows],
        categories=[row[2] for row in rows],
        as_of=as_of,
        has_items=before.has_items or details is not None,
    )
    item_index = vocabulary.item_indices(events.item_ids)[events.items[trained]]
    vocabulary.popularity[:] = np.bincount(item_index, minlength=len(item_ids))
    return vocabulary


def _first_times(codes: npt.NDArray[np.int32], times: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    first = np.full(size, _LAST, np.int64)
    np.minimum.at(first, codes, times)
    return first


def _by_first(ids: list[str], first: npt.NDArray[np.int64], group: npt.NDArray[np.int64]) -> list[str]:
    """Return the ids that have a first time, by group, then time, then id."""
    found = np.flatnonzero(first < _LAST)
    return [
        text
        for _, _, text in sorted(
            zip(group[found].tolist(), first[found].tolist(), (ids[code] for code in found), strict=True)
        )
    ]


def _details(
    item_ids: list[str], before: Vocabulary, details: Details | None
) -> list[tuple[str | None, str | None, str | None]]:
    """Return title, text and categories by item index: tonight's where the table has the item, else last night's."""
    known = list(zip(before.titles, before.texts, before.categories, strict=True))
    rows = known + [(None, None, None)] * (len(item_ids) - len(known))
    if details:
        rows[1:] = [details.get(item, row) for item, row in zip(item_ids[1:], rows[1:], strict=True)]
    return rows


def assemble_sequences(
    events: Events,
    cut: Cut,
    trained: npt.NDArray[np.bool_],
    *,
    vocabulary: Vocabulary,
    window: Window,
    repeat_items: bool,
) -> tuple[Sequences, dict[Split, npt.NDArray[np.int64]]]:
    """Return the night's sequences, and the time of each target by split.

    Events with items outside the vocabulary leave the histories; as targets
    they keep their row and count as a miss. What an event is for was settled
    before, on the whole sequence: here only the positions shift.

    Args:
        events: tonight's rows in chronological order.
        cut: what each of them is for.
        trained: which of them are training rows that the k-core keeps, bool [n].
        vocabulary: tonight's.
        window: the time window.
        repeat_items: whether `events` holds a user's later events with an item.
    """
    users = vocabulary.user_indices(events.user_ids)[events.users].astype(np.int64)
    items = vocabulary.item_indices(events.item_ids)[events.items]
    order = stable_order(users)
    users, items, times = users[order], items[order], events.times[order]
    kept = items != UNKNOWN_ITEM
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users[kept], minlength=vocabulary.n_users))])
    lengths = np.cumsum(kept) - kept - offsets[users]
    masks: dict[Split, npt.NDArray[np.bool_]] = {split: getattr(cut, split)[order] for split in SPLITS}
    tables = {
        split: np.stack([users[mask], lengths[mask], items[mask].astype(np.int64)], axis=1)
        for split, mask in masks.items()
    }
    sequences = Sequences(
        items=items[kept],
        times=times[kept],
        weights=events.weights[order][kept],
        offsets=offsets,
        train_length=np.bincount(users[trained[order]], minlength=vocabulary.n_users).astype(np.int32),
        **tables,
        n_items=vocabulary.n_items,
        vocabulary=vocabulary.digest,
        repeat_items=repeat_items,
        order=events.order,
        window_start=window.start,
        window_end=window.end,
        window_reason=window.reason,
    )
    return sequences, {split: times[mask] for split, mask in masks.items()}


_EMPTY = Vocabulary(
    item_ids=[""], user_ids=[], popularity=np.zeros(1, np.int64), titles=[None], texts=[None], categories=[None]
)
