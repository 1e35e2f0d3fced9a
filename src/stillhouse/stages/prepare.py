"""The stage ``prepare``: accepted rows become a vocabulary, sequences and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillhouse.data.assemble import assemble_sequences, assemble_vocabulary, read_details
from stillhouse.data.events import Events, chronological, read_events, without_repeats
from stillhouse.data.files import is_none
from stillhouse.data.kcore import kcore
from stillhouse.data.leakage import (
    Hashes,
    among,
    check_cut,
    check_histories,
    load_trained,
    row_hashes,
    save_trained,
    union,
)
from stillhouse.data.sequences import SPLITS, Sequences
from stillhouse.data.split import Cut, Window, cut, time_window
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError
from stillhouse.params.prepare import PrepareParams
from stillhouse.reporting import Reporter

__all__ = ["prepare"]

Mask = npt.NDArray[np.bool_]


def prepare(
    *,
    accepted: Path,
    admitted: Path,
    previous_vocabulary: Path,
    vocabulary: Path,
    sequences: Path,
    params: PrepareParams,
    reporter: Reporter,
) -> Mapping[str, float | int | str | None]:
    """Turn accepted rows into the night's vocabulary, sequences and held-out targets.

    Args:
        accepted: the rows that the stage validate let through.
        admitted: what the stage admit left; it stands for *the night may go on*.
        previous_vocabulary: last night's vocabulary, or none.
        vocabulary: where tonight's goes.
        sequences: where the sequences and splits go.
        params: the stage's settings.
        reporter: hears what was found.

    Returns:
        counts of what was read, kept, dropped, trained on and held out.

    Raises:
        DataError: too little is left to train on, or the rows do not fit last night's.
    """
    del admitted  # the graph's order is all that it stands for
    previous = None if is_none(previous_vocabulary) else Vocabulary.load(previous_vocabulary)
    with reporter.progress("prepare", 5) as progress:
        events = read_events(accepted, min_rating=params.min_rating, event_weights=params.event_weights)
        n_read = len(events)
        progress.advance()
        window = _window(events, previous, params)
        events = chronological(events)
        events = events if params.repeat_items else without_repeats(events, window.start)
        progress.advance()
        splits = cut(events, window)
        trained = _training_rows(events, splits, previous, window, params)
        hashes = row_hashes(events)
        seen = union(hashes[trained], *([load_trained(previous_vocabulary)] if previous else []))
        splits, dropped = _never_trained_on(splits, hashes, seen)
        check_cut(events, splits, hashes, seen, window)
        progress.advance()
        tonight = assemble_vocabulary(
            events, trained, previous=previous, details=read_details(accepted), as_of=_utc(params.as_of).isoformat()
        )
        made, target_times = assemble_sequences(
            events, splits, trained, vocabulary=tonight, window=window, repeat_items=params.repeat_items
        )
        check_histories(made, target_times)
        progress.advance()
        tonight.save(vocabulary)
        save_trained(vocabulary, seen)
        made.save(sequences)
        progress.advance()
    reporter.note(
        f"{tonight.n_users} users, {tonight.n_items} items, {made.training_rows} training rows; window: {window.reason}"
    )
    return {
        "rows": n_read + events.below_rating,
        "rows_below_min_rating": events.below_rating,
        "repeats_dropped": n_read - len(events),
        "unknown_items_dropped": len(events) - made.n_events,
        "held_out_dropped": dropped,
        **_counts(tonight, made, previous),
    }


def _utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC; without an offset it is taken for UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _seconds(moment: datetime) -> int:
    return int(_utc(moment).timestamp() // 1)


def _window(events: Events, previous: Vocabulary | None, params: PrepareParams) -> Window:
    if not len(events):
        raise DataError(
            f"at least one row must be rated {params.min_rating:g} or more, found none of {events.below_rating}: "
            "lower it (params.yaml: prepare.min_rating)"
            if params.min_rating is not None
            else "at least one row must be accepted, found none: look at the quarantine (stage validate)"
        )
    last = previous.as_of if previous is not None else None
    return time_window(
        events,
        window_days=params.window_days,
        as_of=_seconds(params.as_of),
        previous_as_of=None if last is None else _seconds(datetime.fromisoformat(last)),
    )


def _training_rows(
    events: Events, splits: Cut, previous: Vocabulary | None, window: Window, params: PrepareParams
) -> Mask:
    """Return which rows the night's models train on: the k-core of the rows that the split gives them."""
    rows = splits.train
    if not rows.any():
        raise DataError(
            f"there must be rows before the time window, found none of {len(events)} (it {window.reason}): "
            "shorten it (params.yaml: prepare.window_days)"
        )
    known = np.zeros(len(events.item_ids), bool)
    if previous is not None:
        known = previous.item_indices(events.item_ids) > 0
    kept_users, kept_items = kcore(
        events.users[rows],
        events.items[rows],
        min_user_events=params.min_user_events,
        min_item_events=params.min_item_events,
        n_users=len(events.user_ids),
        protected=known,
    )
    trained = rows & kept_users[events.users] & kept_items[events.items]
    _require_enough(events, rows, trained, params)
    return trained


def _require_enough(events: Events, rows: Mask, trained: Mask, params: PrepareParams) -> None:
    counts = np.bincount(events.users[trained], minlength=1)
    users, items = int((counts > 0).sum()), int((np.bincount(events.items[trained]) > 0).sum())
    if users >= 2 and items >= 2 and counts.max() >= 2:
        return
    raise DataError(
        f"at least 2 users and 2 items must be left to train on, and a user with 2 training rows; found {users} users "
        f"and {items} items in {int(trained.sum())} of {int(rows.sum())} training rows: lower "
        f"prepare.min_user_events (now {params.min_user_events}) or prepare.min_item_events "
        f"(now {params.min_item_events}) in params.yaml, or bring more rows"
    )


def _never_trained_on(splits: Cut, hashes: Hashes, seen: Hashes) -> tuple[Cut, int]:
    """Take targets that tonight's models or an ancestor train on out of the splits; return how many there were.

    It happens where a source took rows back, or brought old rows late: what
    was the fourth event of a user becomes the third.
    """
    targets = np.flatnonzero(splits.held_out)
    dropped = targets[among(hashes[targets], seen)]
    fair = np.ones(len(hashes), bool)
    fair[dropped] = False
    return replace(splits, **{split: getattr(splits, split) & fair for split in SPLITS}), len(dropped)


def _counts(vocabulary: Vocabulary, made: Sequences, previous: Vocabulary | None) -> dict[str, int | str | None]:
    return {
        "users": vocabulary.n_users,
        "items": vocabulary.n_items,
        "new_users": vocabulary.n_users - (previous.n_users if previous else 0),
        "new_items": vocabulary.n_items - (previous.n_items if previous else 0),
        "events": made.n_events,
        "training_rows": made.training_rows,
        "training_users": int((made.train_length > 0).sum()),
        **{f"{split}_targets": len(made.targets(split)) for split in SPLITS},
        "window_unknown_items": int((made.window[:, 2] == 0).sum()),
        "window_without_history": int((made.window[:, 1] == 0).sum()),
        "window_start": made.window_start,
        "window_end": made.window_end,
        "window_reason": made.window_reason,
    }
