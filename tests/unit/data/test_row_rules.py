import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data.night_rows import read_snapshot
from stillhouse.data.row_rules import row_rules
from stillhouse.params.validate import ValidateParams

NOON = 1_704_110_400  # 2024-01-01 12:00 UTC


@pytest.fixture
def params():
    return ValidateParams(
        min_rows=1,
        min_users=1,
        min_items=1,
        earliest=date(1995, 1, 1),
        rating_min=1.0,
        rating_max=5.0,
        id_length=8,
        volume_min=0.8,
        volume_max=2.0,
        event_weights={"view": 0.4, "buy": 1.0},
        as_of=datetime(2024, 2, 1, tzinfo=UTC),
    )


def reasons(rows, params):
    """Reasons by row, in the order of the rules."""
    rules = row_rules(rows, params)
    return [[rule.reason for rule in rules if rule.bad[row]] for row in range(rows.n)]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"user_id": None}, "user_id missing"),
        ({"user_id": " \t "}, "user_id missing"),
        ({"item_id": ""}, "item_id missing"),
        ({"user_id": "x" * 9}, "user_id longer than 8 characters"),
        ({"item_id": "ü" * 10_000}, "item_id longer than 8 characters"),
        ({"time": None}, "timestamp missing"),
        ({"time": None, "unparsed": '{"time": "tomorrow"}'}, "timestamp cannot be read"),
        ({"rating": None, "unparsed": '{"rating": "abc"}'}, "rating cannot be read"),
        ({"user_id": None, "unparsed": '{"user_id": "??"}'}, "user_id cannot be read"),
        ({"time": 0}, "timestamp before 1995-01-01"),
        ({"time": -5}, "timestamp before 1995-01-01"),
        ({"time": NOON * 1000}, "timestamp in milliseconds"),
        ({"time": NOON * 10**6 + 7}, "timestamp in microseconds"),
        ({"time": NOON * 10**9}, "timestamp in nanoseconds"),
        ({"time": 1_706_745_601}, "timestamp after as_of"),
        ({"time": 4_000_000_000}, "timestamp after as_of"),
        ({"time": 2**63 - 1}, "timestamp after as_of"),
        ({"rating": float("nan")}, "rating is NaN"),
        ({"rating": 0.99}, "rating outside 1 to 5"),
        ({"rating": 5.01}, "rating outside 1 to 5"),
        ({"rating": float("inf")}, "rating outside 1 to 5"),
        ({"event": None}, "event missing"),
        ({"event": "refund"}, "event type without a weight"),
    ],
)
def test_a_bad_cell_gives_its_reason_and_no_other(make_snapshot, params, cells, reason):
    rows = read_snapshot(make_snapshot({"2024-01-01": [{}, cells, {}]}))
    assert reasons(rows, params) == [[], [reason], []]


@pytest.mark.parametrize(
    "cells",
    [
        {"user_id": "x" * 8},
        {"time": 1_706_745_600},
        {"time": 788_918_400},
        {"rating": 1.0},
        {"rating": 5.0},
        {"rating": None},
        {"event": "buy"},
        {"user_id": "nan"},
    ],
)
def test_a_cell_on_the_edge_is_good(make_snapshot, params, cells):
    rows = read_snapshot(make_snapshot({"2024-01-01": [{}, cells]}))
    assert reasons(rows, params) == [[], []]


def test_a_row_with_several_mistakes_has_several_reasons(make_snapshot, params):
    rows = read_snapshot(make_snapshot({"undated": [{"user_id": None, "rating": 9.0, "event": "refund"}]}))
    assert reasons(rows, params) == [["user_id missing", "rating outside 1 to 5", "event type without a weight"]]


def test_a_line_that_is_no_row_is_not_also_without_ids(make_snapshot, params):
    line = dict.fromkeys(["user_id", "item_id", "time", "rating", "event"]) | {"unparsed": json.dumps({"row": "a;b"})}
    rows = read_snapshot(make_snapshot({"undated": [line]}))
    assert reasons(rows, params) == [["row cannot be read"]]


def test_a_missing_rating_is_bad_only_where_no_event_explains_it(make_snapshot, params):
    days = {"2024-01-01": [{}, {"rating": None}]}
    with_events = read_snapshot(make_snapshot(days, name="with"))
    without = read_snapshot(make_snapshot(days, has_event=False, name="without"))
    unrated = read_snapshot(make_snapshot(days, has_event=False, has_rating=False, name="unrated"))
    assert reasons(with_events, params) == [[], []]
    assert reasons(without, params) == [[], ["rating missing"]]
    assert reasons(unrated, params) == [[], []]


def test_the_first_of_equal_user_item_and_time_is_kept_whatever_its_event(make_snapshot, params):
    same = {"user_id": "ann", "item_id": "tea", "time": NOON}
    days = {"2024-01-01": [same, {**same, "time": NOON + 1}, {**same, "event": "buy"}, same]}
    rows = read_snapshot(make_snapshot(days))
    repeat = "duplicate of an earlier row"
    assert reasons(rows, params) == [[], [], [repeat], [repeat]]


def test_a_good_row_stays_when_its_earlier_twin_is_bad(make_snapshot, params):
    same = {"user_id": "ann", "item_id": "tea", "time": NOON}
    rows = read_snapshot(make_snapshot({"2024-01-01": [{**same, "rating": 9.0}, same, same]}))
    assert reasons(rows, params) == [["rating outside 1 to 5"], [], ["duplicate of an earlier row"]]


@pytest.mark.parametrize("mix", [None, 0])
def test_repeats_are_those_that_pandas_finds_even_where_unequal_rows_mix_to_one_number(
    make_snapshot, params, monkeypatch, mix
):
    if mix is not None:
        monkeypatch.setattr("stillhouse.data.row_rules._GOLDEN", np.uint64(mix))
    rng = np.random.default_rng(4)
    cells = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "time": NOON + int(time)}
        for user, item, time in rng.integers(0, 6, (300, 3))
    ]
    rows = read_snapshot(make_snapshot({"2024-01-01": cells}))
    expected = pd.DataFrame(cells).duplicated().tolist()
    assert 0 < sum(expected) < 300
    assert [found == ["duplicate of an earlier row"] for found in reasons(rows, params)] == expected


def test_rows_without_ids_are_no_duplicates_of_each_other(make_snapshot, params):
    nobody = {"user_id": None, "time": NOON}
    rows = read_snapshot(make_snapshot({"2024-01-01": [nobody, nobody]}))
    assert reasons(rows, params) == [["user_id missing"], ["user_id missing"]]


def test_items_must_be_in_the_item_table_where_there_is_one(make_snapshot, params):
    days = {"2024-01-01": [{"item_id": "tea"}, {"item_id": "mug"}, {"item_id": None}]}
    with_table = read_snapshot(make_snapshot(days, items=["tea", None], name="with"))
    without = read_snapshot(make_snapshot(days, name="without"))
    assert reasons(with_table, params) == [[], ["item not in the item table"], ["item_id missing"]]
    assert reasons(without, params) == [[], [], ["item_id missing"]]


def test_positions_are_not_held_against_the_calendar(make_snapshot, params):
    days = {"undated": [{"time": 0}, {"time": -3}, {"time": NOON * 1000}, {"time": None}]}
    rows = read_snapshot(make_snapshot(days, order="position"))
    assert reasons(rows, params) == [[], [], [], ["position missing"]]


def test_milliseconds_are_named_for_an_as_of_long_ago(make_snapshot, params):
    old = params.model_copy(update={"as_of": datetime(1998, 5, 1)})
    days = {"1998-04-22": [{"time": 893_286_638}], "undated": [{"time": 893_286_638_000}]}
    assert reasons(read_snapshot(make_snapshot(days)), old) == [[], ["timestamp in milliseconds"]]


def test_a_file_with_another_schema_is_bad_as_a_whole_and_says_so_once(make_snapshot, params):
    folder = make_snapshot({"2024-01-01": [{}], "2024-01-02": [{}, {}]})
    path = folder / "interactions" / "2024-01-02.parquet"
    table = pq.read_table(path).drop_columns(["event"])
    pq.write_table(table.set_column(2, "time", pa.array(["a", "b"])), path)
    rows = read_snapshot(folder)
    assert reasons(rows, params) == [[], *[["file without the snapshot's columns"]] * 2]
    assert rows.broken == {"interactions/2024-01-02.parquet": "time is string, event is missing"}


def test_the_line_says_what_must_hold_what_was_found_where_and_what_to_do(make_snapshot, params):
    days = {"2024-01-01": [{}], "undated": [{}, {"time": NOON * 1000}, {"time": NOON * 1000 + 1}]}
    rows = read_snapshot(make_snapshot(days))
    [rule] = [rule for rule in row_rules(rows, params) if rule.bad.any()]
    assert rule.line(rows, 2) == (
        "timestamps must be seconds since 1970, found 2 of 4 rows that look like milliseconds "
        "(first: interactions/undated.parquet row 1, time 1704110400000): "
        "divide the column by 1000 in the source, or give ISO dates (source.columns.timestamp)"
    )


def test_the_line_shows_what_could_not_be_read(make_snapshot, params):
    days = {"2024-01-01": [{"rating": None, "unparsed": '{"rating": "five stars"}'}]}
    rows = read_snapshot(make_snapshot(days))
    [rule] = [rule for rule in row_rules(rows, params) if rule.bad.any()]
    assert "(first: interactions/2024-01-01.parquet row 0, rating 'five stars')" in rule.line(rows, 1)


def test_an_empty_snapshot_breaks_no_rule(make_snapshot, params):
    for name, days in (("no-files", {}), ("empty-file", {"undated": []})):
        rows = read_snapshot(make_snapshot(days, items=[], name=name))
        assert rows.n == 0
        assert all(rule.bad.shape == (0,) for rule in row_rules(rows, params))


def test_names_and_reasons_of_rules_are_unique(make_snapshot, params):
    folders = [
        make_snapshot({"2024-01-01": [{}]}, name="events"),
        make_snapshot({"2024-01-01": [{}]}, has_event=False, items=["i0"], name="ratings"),
    ]
    rules = [rule for folder in folders for rule in row_rules(read_snapshot(folder), params)]
    names = {rule.name: rule.reason for rule in rules}
    assert len(set(names.values())) == len(names)
    assert np.all([rule.bad.dtype == bool for rule in rules])
