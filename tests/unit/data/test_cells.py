"""Cells are read, or kept as text; none stops the reading."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.cells import read_events, read_ids, read_positions, read_ratings, read_times

NOON = 1_767_268_800  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("cells", "typed", "ids"),
    [
        (pa.array([1, None, -3]), True, ["1", None, "-3"]),
        (pa.array([123.0, None, 1.5, float("nan"), 2.0**40]), True, ["123", None, "1.5", None, "1099511627776"]),
        (pa.array(["a", "", None, "7.0"]), True, ["a", None, None, "7.0"]),
        (pa.array(["a", "", None, "7.0", "v1.0", "1.5"]), False, ["a", None, None, "7", "v1.0", "1.5"]),
        (pa.array([Decimal("12.00"), Decimal("1.50")]), True, ["12", "1.50"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), True, ["x", "y", "x"]),
        (pa.array([None, None]), True, [None, None]),
    ],
)
def test_ids_become_strings_and_whole_numbers_carry_no_point(cells: pa.Array, typed: bool, ids: list[str | None]):
    assert read_ids(cells, typed).values.to_pylist() == ids


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767268800", NOON),
        ("1767268800.9", NOON),
        ("1.7672688e9", NOON),
        ("1767268800000", NOON * 1000),
        ("-1.5", -2),
        ("2026-01-01", NOON - 43_200),
        ("2026-01-01 12:00", NOON),
        ("2026-01-01T12:00:00", NOON),
        ("2026-01-01T12:00:00.999999", NOON),
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01 14:00:00+02:00", NOON),
        ("2026-01-01 12:00:00+00", NOON),
        (" 1767268800 ", NOON),
        ("1969-12-31T23:59:59.5", -1),
    ],
)
def test_moments_are_read_from_numbers_and_iso_text(text: str, seconds: int):
    assert read_times(pa.array([text])).values.to_pylist() == [seconds]


@pytest.mark.parametrize("text", ["yesterday", "2026-13-45", "01.02.2026", "nan", "1e400", "2026-01-01T99:00"])
def test_text_that_is_no_moment_is_kept(text: str):
    column = read_times(pa.array([text, "1"]))
    assert column.values.to_pylist() == [None, 1]
    assert column.unread.to_pylist() == [text, None]


def test_one_bad_moment_does_not_touch_its_neighbours():
    column = read_times(pa.array(["2026-01-01", "x", None, "", "5", "2026-01-01T12:00:00Z"]))
    assert column.values.to_pylist() == [NOON - 43_200, None, None, None, 5, NOON]
    assert column.unread.to_pylist() == [None, "x", None, None, None, None]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([datetime(2026, 1, 1, 12, 0, 0, 999)]),
        pa.array([datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))]),
        pa.array([datetime(2026, 1, 1, 12)], pa.timestamp("ns")),
        pa.array([datetime(2026, 1, 1, 12)], pa.timestamp("s")),
        pa.array([float(NOON) + 0.5]),
        pa.array([NOON], pa.uint64()),
        pa.array([Decimal("1767268800.50")]),
        pa.array(np.array([NOON])),
    ],
)
def test_typed_moments_are_read(cells: pa.Array):
    assert read_times(cells).values.to_pylist() == [NOON]


def test_dates_are_midnight_utc_and_moments_before_1970_round_down():
    assert read_times(pa.array([date(2026, 1, 1)])).values.to_pylist() == [NOON - 43_200]
    assert read_times(pa.array([datetime(1969, 12, 31, 23, 59, 59, 1)])).values.to_pylist() == [-1]


def test_floats_that_are_no_moment_are_null_or_kept():
    column = read_times(pa.array([float("nan"), float("inf"), 1e30, 3.0]))
    assert column.values.to_pylist() == [None, None, None, 3]
    assert [text is None for text in column.unread.to_pylist()] == [True, False, False, True]


def test_ratings_keep_nan_and_null_apart():
    column = read_ratings(pa.array(["4.5", "", "nan", "abc", None, "NULL", "1e1", "3,5"]))
    values = column.values.to_pylist()
    assert [values[place] for place in (0, 1, 3, 4, 5, 6, 7)] == [4.5, None, None, None, None, 10.0, None]
    assert np.isnan(values[2])
    assert column.unread.to_pylist() == [None, None, None, "abc", None, None, None, "3,5"]
    floats = read_ratings(pa.array([1, None], pa.float32())).values
    assert floats.to_pylist() == [1.0, None]


def test_positions_are_whole_numbers():
    text = read_positions(pa.array(["3", "4.0", "4.5", "x", None, "2026-01-01"]))
    assert text.values.to_pylist() == [3, 4, None, None, None, None]
    assert text.unread.to_pylist() == [None, None, "4.5", "x", None, "2026-01-01"]
    floats = read_positions(pa.array([3.0, 4.5]))
    assert floats.values.to_pylist() == [3, None]
    assert floats.unread.to_pylist() == [None, "4.5"]


def test_events_lose_blanks_and_empty_ones_are_null():
    assert read_events(pa.array([" view", "", None, "cart"])).values.to_pylist() == ["view", None, None, "cart"]


def test_a_long_cell_is_cut_short():
    assert len(read_ratings(pa.array(["x" * 10_000])).unread[0].as_py()) == 200


@given(st.lists(st.none() | st.text(max_size=30), max_size=20))
def test_no_text_stops_a_reader_and_each_cell_is_read_or_kept(cells: list[str | None]):
    array = pa.array(cells, pa.string())
    for read in (read_times, read_ratings, read_positions):
        column = read(array)
        assert len(column.values) == len(column.unread) == len(cells)
        for cell, value, unread in zip(cells, column.values.to_pylist(), column.unread.to_pylist(), strict=True):
            assert value is None or unread is None
            if cell is None:
                assert value is None
                assert unread is None


@given(st.lists(st.integers(-(10**17), 10**17), max_size=20))
def test_whole_numbers_are_the_same_from_text_and_from_integers(numbers: list[int]):
    text = pa.array([str(number) for number in numbers], pa.string())
    typed = pa.array(numbers, pa.int64())
    for read in (read_times, read_positions):
        assert read(text).values.equals(read(typed).values)
    assert read_ids(text, False).values.equals(read_ids(typed, True).values)


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)))
def test_any_moment_is_the_same_from_text_and_typed(moment: datetime):
    seconds = (moment.replace(microsecond=0) - datetime(1970, 1, 1)) // timedelta(seconds=1)
    assert read_times(pa.array([moment.isoformat()])).values.to_pylist() == [seconds]
    assert read_times(pa.array([moment], pa.timestamp("us"))).values.to_pylist() == [seconds]
