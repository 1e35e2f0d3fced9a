from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.events import Events, chronological, read_events, without_repeats
from stillhouse.errors import DataError

Write = Callable[..., Path]
WEIGHTS = {"view": 0.5, "purchase": 1.0}
DAY = 86_400


def _read(directory: Path, min_rating: float | None = None) -> Events:
    return read_events(directory, min_rating=min_rating, event_weights=WEIGHTS)


def _rows(events: Events) -> list[tuple[str, str, int, float]]:
    return [
        (events.user_ids[user], events.item_ids[item], int(time), float(weight))
        for user, item, time, weight in zip(events.users, events.items, events.times, events.weights, strict=True)
    ]


def test_days_come_in_order_of_their_names_and_rows_in_order_of_the_file(tmp_path: Path, write_accepted: Write) -> None:
    late_first = [("b", "x", DAY + 5), ("a", "x", DAY + 2), ("a", "y", 9), ("b", "y", 7)]
    events = _read(write_accepted(tmp_path / "a", late_first))
    assert [row[:3] for row in _rows(events)] == [
        ("a", "y", 9),
        ("b", "y", 7),
        ("b", "x", DAY + 5),
        ("a", "x", DAY + 2),
    ]


def test_low_ratings_go_and_missing_ratings_stay(tmp_path: Path, write_accepted: Write) -> None:
    rows = [("a", "x", 1, 2.0), ("a", "y", 2, 4.0), ("a", "z", 3, None), ("b", "x", 4, 3.5)]
    events = _read(write_accepted(tmp_path / "a", rows), min_rating=3.5)
    assert [row[1] for row in _rows(events)] == ["y", "z", "x"]
    assert events.below_rating == 1


def test_a_row_weighs_what_its_event_does_and_one_without_an_event_weighs_one(
    tmp_path: Path, write_accepted: Write
) -> None:
    rows = [("a", "x", 1, None, "view"), ("a", "y", 2, None, None), ("a", "z", DAY, None, "purchase")]
    assert [row[3] for row in _rows(_read(write_accepted(tmp_path / "a", rows)))] == [0.5, 1.0, 1.0]


def test_an_event_type_without_weight_is_named(tmp_path: Path, write_accepted: Write) -> None:
    with pytest.raises(DataError, match=r"'wish'.*event_weights"):
        _read(write_accepted(tmp_path / "a", [("a", "x", 1, None, "wish")]))


def test_a_null_id_is_refused(tmp_path: Path, write_accepted: Write) -> None:
    with pytest.raises(DataError, match="must have a item_id, found 1"):
        _read(write_accepted(tmp_path / "a", [("a", None, 1), ("a", "x", 2)]))


def test_a_folder_without_days_is_refused(tmp_path: Path, write_accepted: Write) -> None:
    with pytest.raises(DataError, match="at least one day"):
        _read(write_accepted(tmp_path / "a", []))


def test_equal_times_keep_their_order(tmp_path: Path, write_accepted: Write) -> None:
    rows = [("b", "z", 5), ("a", "q", 5), ("b", "a", 5), ("b", "m", 4), ("a", "b", 5)]
    events = chronological(_read(write_accepted(tmp_path / "a", rows)))
    assert [row[:2] for row in _rows(events)] == [("b", "m"), ("b", "z"), ("b", "a"), ("a", "q"), ("a", "b")]


def _events(rows: list[tuple[int, int, int, float]]) -> Events:
    users, items, times, weights = zip(*rows, strict=True)
    return Events(
        users=np.array(users, np.int32),
        items=np.array(items, np.int32),
        times=np.array(times, np.int64),
        weights=np.array(weights, np.float32),
        user_ids=[f"u{code}" for code in range(max(users) + 1)],
        item_ids=[f"i{code}" for code in range(max(items) + 1)],
        order="timestamp",
    )


def test_the_first_of_repeats_is_kept_with_the_highest_weight() -> None:
    events = without_repeats(
        _events([(0, 1, 1, 0.5), (0, 0, 2, 0.5), (0, 1, 3, 1.0), (0, 1, 4, 0.25), (1, 1, 5, 0.25)]), None
    )
    assert _rows(events) == [("u0", "i1", 1, 0.5 * 2), ("u0", "i0", 2, 0.5), ("u1", "i1", 5, 0.25)]


def test_a_purchase_in_the_window_lends_no_weight_to_a_view_before_it() -> None:
    events = without_repeats(_events([(0, 0, 1, 0.5), (0, 1, 10, 0.25), (0, 0, 11, 1.0), (0, 1, 12, 1.0)]), 10)
    assert _rows(events) == [("u0", "i0", 1, 0.5), ("u0", "i1", 10, 0.25)]


def test_a_row_that_is_first_in_the_window_keeps_its_own_weight() -> None:
    events = without_repeats(_events([(0, 0, 11, 0.5), (0, 0, 12, 1.0)]), 10)
    assert _rows(events) == [("u0", "i0", 11, 0.5)]


def test_rows_out_of_order_are_brought_in_order_of_time_and_ties_stay_as_they_came(
    tmp_path: Path, write_accepted: Write
) -> None:
    rows = [("b", "x", 7), ("a", "y", 9), ("a", "x", 2), ("b", "y", 3), ("a", "z", 2), ("b", "z", 7)]
    events = chronological(_read(write_accepted(tmp_path / "a", rows)))
    found = [row[:3] for row in _rows(events)]
    of = {user: [row[1:] for row in found if row[0] == user] for user in "ab"}
    assert of == {"a": [("x", 2), ("z", 2), ("y", 9)], "b": [("y", 3), ("x", 7), ("z", 7)]}
    assert [row[0] for row in found] in (list("aaabbb"), list("bbbaaa"))


def test_an_event_type_needs_no_weight_where_its_rows_are_rated_too_low(tmp_path: Path, write_accepted: Write) -> None:
    rows = [("a", "x", 1, 1.0, "wish"), ("a", "y", 2, 5.0, "view")]
    assert len(_read(write_accepted(tmp_path / "a", rows), min_rating=3.0)) == 1
