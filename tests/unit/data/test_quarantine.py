import json
from datetime import UTC, date, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from stillhouse.data.night_rows import read_snapshot
from stillhouse.data.quarantine import ACCEPTED_SCHEMA, QUARANTINE_SCHEMA, write_accepted, write_quarantine
from stillhouse.data.row_rules import row_rules
from stillhouse.params.validate import ValidateParams

PARAMS = ValidateParams(
    min_rows=1,
    min_users=1,
    min_items=1,
    earliest=date(1995, 1, 1),
    rating_min=0.0,
    rating_max=5.0,
    id_length=8,
    volume_min=0.8,
    volume_max=2.0,
    event_weights={"view": 0.4},
    as_of=datetime(2024, 2, 1, tzinfo=UTC),
)


@pytest.fixture
def part(tmp_path):
    """Give a function that parts a snapshot into tmp_path/accepted and tmp_path/quarantine."""

    def run(folder):
        rows = read_snapshot(folder)
        rules = row_rules(rows, PARAMS)
        accepted = ~np.logical_or.reduce([rule.bad for rule in rules])
        counts = {rule.reason: int(rule.bad.sum()) for rule in rules if rule.bad.any()}
        write_accepted(tmp_path / "accepted", rows, accepted, PARAMS.id_length)
        write_quarantine(tmp_path / "quarantine", rows, accepted, rules, counts)
        return tmp_path / "accepted", tmp_path / "quarantine"

    return run


def test_a_quarantined_row_keeps_its_cells_and_says_where_it_stood_and_why(make_snapshot, part):
    bad = {"user_id": None, "rating": None, "unparsed": '{"rating": "abc"}'}
    _, quarantine = part(make_snapshot({"2024-01-01": [{}, {}], "2024-01-02": [{}, bad]}))
    table = pq.read_table(quarantine / "rows.parquet")
    assert table.schema == QUARANTINE_SCHEMA
    assert table.to_pylist() == [
        {
            "user_id": None,
            "item_id": "i3",
            "time": 1_704_110_403,
            "rating": None,
            "event": "view",
            "unparsed": '{"rating": "abc"}',
            "file": "interactions/2024-01-02.parquet",
            "row": 1,
            "reason": "rating cannot be read; user_id missing",
        }
    ]
    assert json.loads((quarantine / "quarantine.json").read_text()) == {
        "rows": 1,
        "reasons": {"rating cannot be read": 1, "user_id missing": 1},
    }


def test_accepted_rows_keep_files_order_and_schema_and_a_file_without_any_is_left_out(make_snapshot, part):
    days = {"2024-01-01": [{"user_id": "b"}, {"rating": 9.0}, {"user_id": "a"}], "undated": [{"time": None}]}
    accepted, _ = part(make_snapshot(days))
    assert [path.name for path in sorted((accepted / "interactions").iterdir())] == ["2024-01-01.parquet"]
    table = pq.read_table(accepted / "interactions" / "2024-01-01.parquet")
    assert table.schema == ACCEPTED_SCHEMA
    assert table["user_id"].to_pylist() == ["b", "a"]
    assert json.loads((accepted / "accepted.json").read_text()) == {
        "order": "timestamp",
        "rows": 2,
        "has_rating": True,
        "has_event": True,
        "has_items": False,
    }


def test_the_bytes_of_a_day_do_not_depend_on_other_days(make_snapshot, part, tmp_path):
    one, _ = part(make_snapshot({"2024-01-01": [{}, {}]}, name="one"))
    first = (one / "interactions" / "2024-01-01.parquet").read_bytes()
    for folder in ("accepted", "quarantine"):
        (tmp_path / folder).rename(tmp_path / f"{folder}-before")
    two, _ = part(make_snapshot({"2024-01-01": [{}, {}], "2024-01-02": [{"user_id": "x"}]}, name="two"))
    assert (two / "interactions" / "2024-01-01.parquet").read_bytes() == first


def test_the_item_table_names_each_item_once(make_snapshot, part):
    accepted, _ = part(make_snapshot({"2024-01-01": [{}]}, items=["i1", None, "i0", " ", "i1", "x" * 9, "i0"]))
    assert pq.read_table(accepted / "items.parquet")["item_id"].to_pylist() == ["i1", "i0"]


def test_a_clean_snapshot_leaves_an_empty_quarantine(make_snapshot, part):
    _, quarantine = part(make_snapshot({"2024-01-01": [{}]}))
    assert pq.read_table(quarantine / "rows.parquet").schema == QUARANTINE_SCHEMA
    assert pq.read_table(quarantine / "rows.parquet").num_rows == 0
    assert json.loads((quarantine / "quarantine.json").read_text()) == {"rows": 0, "reasons": {}}


def test_a_snapshot_without_rows_gives_empty_sides(make_snapshot, part):
    accepted, quarantine = part(make_snapshot({}))
    assert json.loads((accepted / "accepted.json").read_text())["rows"] == 0
    assert pq.read_table(quarantine / "rows.parquet").num_rows == 0
