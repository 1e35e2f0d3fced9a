"""Whatever the rows, validation loses none, invents none and keeps their order."""

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.data.files import write_json, write_parquet
from stillhouse.data.night_rows import read_snapshot
from stillhouse.data.quarantine import write_accepted, write_quarantine
from stillhouse.data.row_rules import row_rules
from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.params.validate import ValidateParams

NOON = 1_704_110_400
PARAMS = ValidateParams(
    min_rows=1,
    min_users=1,
    min_items=1,
    earliest=date(1995, 1, 1),
    rating_min=0.0,
    rating_max=5.0,
    id_length=3,
    volume_min=0.8,
    volume_max=2.0,
    event_weights={"view": 0.4},
    as_of=datetime(2024, 2, 1, tzinfo=UTC),
)

IDS = st.sampled_from(["a", "b", "é", "", " ", None, "long-id"]) | st.text(max_size=4)
TIMES = st.sampled_from([NOON, NOON + 1, NOON * 1000, None, 0]) | st.integers(-(2**63), 2**63 - 1)
ROW = st.fixed_dictionaries(
    {
        "user_id": IDS,
        "item_id": IDS,
        "time": TIMES,
        "rating": st.none() | st.floats(-1, 7) | st.just(float("nan")),
        "event": st.sampled_from(["view", "view", None, "refund"]),
        "unparsed": st.sampled_from([None, None, None, '{"time": "x"}', '{"row": "x"}', "no JSON"]),
    }
)
FILES = st.lists(st.lists(ROW, max_size=6), max_size=3)


def part(files, base, order, has_event):
    """Return (snapshot's rows, accepted rows, quarantined rows), each row with its file."""
    (base / "s" / "interactions").mkdir(parents=True)
    for number, rows in enumerate(files):
        table = pa.Table.from_pylist(rows, schema=SNAPSHOT_SCHEMA)
        write_parquet(base / "s" / "interactions" / f"day{number}.parquet", table)
    header = {"order": order, "has_rating": True, "has_event": has_event, "has_items": False}
    write_json(base / "s" / "snapshot.json", header)
    rows = read_snapshot(base / "s")
    rules = row_rules(rows, PARAMS)
    accepted = ~np.logical_or.reduce([rule.bad for rule in rules])
    write_accepted(base / "a", rows, accepted, PARAMS.id_length)
    write_quarantine(base / "q", rows, accepted, rules, {})
    kept = {
        path.name: pq.read_table(path).to_pylist() for path in sorted((base / "a" / "interactions").glob("*.parquet"))
    }
    return kept, pq.read_table(base / "q" / "rows.parquet").to_pylist()


def same(one, two):
    """Equality of rows in which NaN equals NaN."""
    return repr(sorted(one.items())) == repr(sorted(two.items()))


@settings(max_examples=60, deadline=None)
@given(files=FILES, order=st.sampled_from(["timestamp", "position"]), has_event=st.booleans())
def test_accepted_and_quarantined_rows_are_the_snapshot(files, order, has_event):
    with tempfile.TemporaryDirectory() as folder:
        kept, quarantined = part(files, Path(folder), order, has_event)
    for number, rows in enumerate(files):
        name = f"day{number}.parquet"
        out = {row["row"]: row for row in quarantined if row["file"] == f"interactions/{name}"}
        stays = iter(kept.pop(name, []))
        for place, row in enumerate(rows):
            if place in out:
                found = {cell: out[place][cell] for cell in SNAPSHOT_SCHEMA.names}
                assert same(found, row)
                assert out[place]["reason"]
            else:
                assert row["unparsed"] is None
                assert same(next(stays), {cell: row[cell] for cell in SNAPSHOT_SCHEMA.names if cell != "unparsed"})
        assert next(stays, None) is None
    assert not kept
    places = [(row["file"], row["row"]) for row in quarantined]
    assert places == sorted(set(places))


@settings(max_examples=60, deadline=None)
@given(files=FILES, order=st.sampled_from(["timestamp", "position"]))
def test_accepted_rows_are_clean(files, order):
    with tempfile.TemporaryDirectory() as folder:
        kept, _ = part(files, Path(folder), order, True)
    rows = [row for part_rows in kept.values() for row in part_rows]
    for row in rows:
        assert row["user_id"].strip()
        assert row["item_id"].strip()
        assert max(len(row["user_id"]), len(row["item_id"])) <= 3
        assert row["event"] == "view"
        assert row["rating"] is None or 0 <= row["rating"] <= 5
        assert row["time"] is not None
        assert order == "position" or 788_918_400 <= row["time"] <= PARAMS.as_of.timestamp()
    assert len({(row["user_id"], row["item_id"], row["time"]) for row in rows}) == len(rows)
