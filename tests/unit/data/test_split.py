from __future__ import annotations

import numpy as np
import pytest

from stillhouse.data.events import Events
from stillhouse.data.split import Cut, Window, cut, time_window
from stillhouse.errors import DataError

DAY = 86_400


def _events(times: dict[str, list[int]], order: str = "timestamp") -> Events:
    users = [code for code, row in enumerate(times.values()) for _ in row]
    flat = [time for row in times.values() for time in row]
    return Events(
        users=np.array(users, np.int32),
        items=np.arange(len(flat), dtype=np.int32),
        times=np.array(flat, np.int64),
        weights=np.ones(len(flat), np.float32),
        user_ids=list(times),
        item_ids=[f"i{code}" for code in range(len(flat))],
        order=order,  # type: ignore[arg-type]
    )


def _letters(splits: Cut) -> str:
    """One letter an event: what it is for; ``-``: nothing."""
    masks = {"t": splits.train, "v": splits.valid, "e": splits.test, "w": splits.window}
    found = ["".join(letter for letter, mask in masks.items() if mask[row]) or "-" for row in range(len(splits.train))]
    assert all(len(letters) == 1 for letters in found), "every event is for one thing"
    return "".join(found)


@pytest.mark.parametrize(("events", "expected"), [(1, "t"), (2, "te"), (3, "tve"), (4, "ttve"), (6, "ttttve")])
def test_leave_one_out_holds_the_last_two_out_and_leaves_at_least_one(events: int, expected: str) -> None:
    assert _letters(cut(_events({"ann": list(range(events))}), Window(None, None, ""))) == expected


def test_what_is_later_than_the_window_start_is_the_windows() -> None:
    events = _events({"ann": [1, 2, 3, 10, 11, 12], "bob": [10, 10, 11], "cem": [11], "dan": [3]})
    assert _letters(cut(events, Window(10, 20, ""))) == "ttve" + "ww" + "tew" + "w" + "t"


def test_each_user_is_cut_alone() -> None:
    events = _events({"ann": [1, 2, 3, 4], "bob": [1], "cem": [1, 2]})
    assert _letters(cut(events, Window(None, None, ""))) == "ttve" + "t" + "te"


AS_OF = 100 * DAY
SPREAD = _events({"ann": [day * DAY for day in range(0, 101, 2)]})


def _window(events: Events = SPREAD, days: float = 7, previous: int | None = None, as_of: int = AS_OF) -> Window:
    return time_window(events, window_days=days, as_of=as_of, previous_as_of=previous)


def test_a_first_nights_window_is_so_many_days_long() -> None:
    assert _window() == Window(93 * DAY, AS_OF, "starts 7 days before as_of")
    assert _window(days=0.5).start == AS_OF - DAY // 2


def test_the_window_never_reaches_back_before_last_nights_as_of() -> None:
    assert _window(previous=99 * DAY) == Window(99 * DAY, AS_OF, "starts at last night's as_of")
    assert _window(previous=50 * DAY).start == 93 * DAY


def test_a_night_repeated_at_the_same_as_of_has_an_empty_window() -> None:
    window = _window(previous=AS_OF)
    assert (window.start, window.end) == (AS_OF, AS_OF)
    assert not cut(SPREAD, window).window.any()


def test_no_window_where_there_is_no_time_or_none_is_wanted() -> None:
    assert _window(days=0).start is None
    assert "window_days" in _window(days=0).reason
    assert _window(_events({"ann": [0, 1]}, order="position")).start is None


def test_no_window_where_it_would_hold_most_of_a_first_night() -> None:
    window = _window(days=60)
    assert window.start is None
    assert "first night" in window.reason


def test_a_later_night_keeps_a_window_that_holds_most_rows() -> None:
    assert _window(days=60, previous=41 * DAY).start == 41 * DAY


def test_a_window_that_holds_exactly_half_of_a_first_night_is_kept() -> None:
    events = _events({"ann": [1, 2, 94 * DAY, 95 * DAY]})
    assert _window(events).start == 93 * DAY


def test_rows_after_as_of_are_refused() -> None:
    with pytest.raises(DataError, match="later than as_of"):
        _window(as_of=99 * DAY)


def test_going_back_before_last_night_is_refused() -> None:
    with pytest.raises(DataError, match="not be before last night's"):
        _window(previous=AS_OF + 1)
