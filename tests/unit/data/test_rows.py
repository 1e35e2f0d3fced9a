"""Rows take one form, and their digest sees what they say and nothing else."""

from __future__ import annotations

import json

import pyarrow as pa

from stillhouse.data.rows import (
    ITEM_SCHEMA,
    SNAPSHOT_SCHEMA,
    gather,
    in_canonical_order,
    interactions_of,
    items_of,
    table_digest,
)


def rows(users: list[str], items: list[str], times: list[int | None]) -> pa.Table:
    cells = {"user": pa.array(users), "item": pa.array(items), "order": pa.array(times, pa.int64())}
    return interactions_of(cells, position=False, typed=True)


def test_a_cell_that_was_not_read_stands_in_unparsed_under_its_column():
    cells = {
        "user": pa.array(["a", "b"]),
        "item": pa.array(["x", "y"]),
        "order": pa.array(["soon", "5"]),
        "rating": pa.array(["good", "4"]),
    }
    table = interactions_of(cells, position=False, typed=False).cast(SNAPSHOT_SCHEMA)
    assert table["time"].to_pylist() == [None, 5]
    assert table["rating"].to_pylist() == [None, 4.0]
    assert table["event"].to_pylist() == [None, None]
    assert json.loads(table["unparsed"][0].as_py()) == {"rating": "good", "time": "soon"}
    assert table["unparsed"][1].as_py() is None


def test_chunks_with_words_of_their_own_are_joined():
    table = gather([rows(["a"], ["x"], [1]), rows(["b", "a"], ["x", "z"], [2, 3])], SNAPSHOT_SCHEMA)
    plain = table.cast(SNAPSHOT_SCHEMA)
    assert plain["user_id"].to_pylist() == ["a", "b", "a"]
    assert plain["item_id"].to_pylist() == ["x", "x", "z"]
    assert gather([], SNAPSHOT_SCHEMA).num_rows == 0


def test_canonical_order_does_not_depend_on_the_order_of_arrival():
    one = rows(["b", "a", "a", "c"], ["x", "y", "x", "x"], [2, 1, 1, None])
    other = gather([rows(["c", "a"], ["x", "x"], [None, 1]), rows(["a", "b"], ["y", "x"], [1, 2])], SNAPSHOT_SCHEMA)
    first, second = in_canonical_order(one), in_canonical_order(other)
    assert first.cast(SNAPSHOT_SCHEMA).equals(second.cast(SNAPSHOT_SCHEMA))
    assert first.cast(SNAPSHOT_SCHEMA)["user_id"].to_pylist() == ["a", "a", "b", "c"]
    assert first.cast(SNAPSHOT_SCHEMA)["item_id"].to_pylist() == ["x", "y", "x", "x"]
    assert table_digest(first) == table_digest(second)


def test_the_digest_sees_every_cell():
    base = table_digest(rows(["a", "b"], ["x", "y"], [1, 2]))
    others = [
        rows(["a", "c"], ["x", "y"], [1, 2]),
        rows(["b", "a"], ["x", "y"], [1, 2]),
        rows(["a", "b"], ["x", "y"], [1, 3]),
        rows(["a", "b"], ["x", "y"], [1, None]),
        rows(["a"], ["x"], [1]),
    ]
    assert len({base, *(table_digest(table) for table in others)}) == 6


def test_an_item_table_takes_the_snapshots_form():
    cells = {"item": pa.array([1.0, 2.0]), "title": pa.array(["T", ""]), "category": pa.array(["a;b", None])}
    table = items_of(cells, separator=";", typed=True)
    assert table.schema == ITEM_SCHEMA
    assert table.to_pylist() == [
        {"item_id": "1", "title": "T", "text": None, "category": "a|b"},
        {"item_id": "2", "title": None, "text": None, "category": None},
    ]


def test_categories_may_be_lists():
    cells = {"item": pa.array(["1"]), "category": pa.array([["a", "b"]])}
    assert items_of(cells, separator="|", typed=True)["category"].to_pylist() == ["a|b"]


def test_a_list_keeps_its_names_whatever_they_hold_and_whichever_is_missing():
    cells = {"item": pa.array(["1", "2", "3"]), "category": pa.array([["x", None, "y"], ["Home, Garden"], None])}
    assert items_of(cells, separator=",", typed=True)["category"].to_pylist() == ["x|y", "Home, Garden", None]
