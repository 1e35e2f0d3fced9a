"""Ingest makes a snapshot whose files depend on their own day alone, and refuses a source that changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillhouse.data.files import read_json, sha256_file, sha256_tree
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA
from stillhouse.data.shop_shape import FIRST_DAY
from stillhouse.data.sources import fingerprint
from stillhouse.errors import SourceError
from stillhouse.params.ingest import IngestParams
from stillhouse.params.source import Columns, ShopSpec, SourceSpec
from stillhouse.reporting import SilentReporter
from stillhouse.stages.ingest import ingest

SHOP = SourceSpec(shop=ShopSpec(size="tiny"))
AS_OF = FIRST_DAY + timedelta(days=60)
CSV = "user_id,item_id,timestamp\n" + "\n".join(
    ["b,x,90000", "a,x,5", "a,y,3", "c,z,", "c,z,1767225600000", "d,z,soon", "e,z,86399", "e,z,-1"]
)


def run(snapshot: Path, source: SourceSpec, as_of: datetime = AS_OF) -> Mapping[str, int]:
    params = IngestParams(as_of=as_of, source=source, fingerprint=fingerprint(source, as_of))
    return ingest(snapshot=snapshot, params=params, reporter=SilentReporter())


@pytest.fixture
def csv_source(tmp_path: Path) -> SourceSpec:
    (tmp_path / "rows.csv").write_text(CSV)
    (tmp_path / "items.csv").write_text("item_id,title\nx,X\ny,Y\nx,again\n,nobody\nz,Z\n")
    return SourceSpec(kind="file", path=str(tmp_path / "rows.csv"), items_path=str(tmp_path / "items.csv"))


def test_each_event_day_has_a_file_with_its_rows_in_the_sources_order(tmp_path: Path, csv_source: SourceSpec):
    metrics = run(tmp_path / "snapshot", csv_source)
    folder = tmp_path / "snapshot" / "interactions"
    days = {file.name: pq.read_table(file) for file in folder.iterdir()}
    assert sorted(days) == ["1970-01-01.parquet", "1970-01-02.parquet", "undated.parquet"]
    assert all(table.schema.equals(SNAPSHOT_SCHEMA) for table in days.values())
    assert days["1970-01-01.parquet"]["time"].to_pylist() == [5, 3, 86_399]
    assert days["undated.parquet"]["time"].to_pylist() == [None, 1_767_225_600_000, None, -1]
    assert dict(metrics) == {"rows": 8, "days": 2, "undated": 4, "items": 3, "items_dropped": 2}


def test_the_header_says_what_the_source_has(tmp_path: Path, csv_source: SourceSpec):
    run(tmp_path / "files", csv_source)
    assert read_json(tmp_path / "files" / "snapshot.json") == {
        "order": "timestamp",
        "rows": 8,
        "has_rating": False,
        "has_event": False,
        "has_items": True,
    }
    run(tmp_path / "shop", SHOP)
    header = read_json(tmp_path / "shop" / "snapshot.json")
    assert header["has_rating"]
    assert header["has_event"]
    assert header["rows"] > 2_500


def test_an_item_stands_once_and_the_first_counts(tmp_path: Path, csv_source: SourceSpec):
    run(tmp_path / "snapshot", csv_source)
    items = pq.read_table(tmp_path / "snapshot" / "items.parquet")
    assert items.schema.equals(ITEM_SCHEMA)
    assert [(row["item_id"], row["title"]) for row in items.to_pylist()] == [("x", "X"), ("y", "Y"), ("z", "Z")]


def test_rows_by_position_are_undated(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("user_id,item_id,place\na,x,2\na,y,1\n")
    columns = Columns(timestamp=None, position="place")
    run(tmp_path / "snapshot", SourceSpec(kind="file", path=str(tmp_path / "rows.csv"), columns=columns))
    folder = tmp_path / "snapshot"
    assert read_json(folder / "snapshot.json")["order"] == "position"
    assert [file.name for file in (folder / "interactions").iterdir()] == ["undated.parquet"]
    assert not (folder / "items.parquet").exists()


def test_the_same_source_gives_the_same_bytes_whatever_the_night(tmp_path: Path, csv_source: SourceSpec):
    run(tmp_path / "one", csv_source, AS_OF)
    run(tmp_path / "two", csv_source, AS_OF + timedelta(days=3))
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_nights_share_the_files_of_days_that_did_not_change(tmp_path: Path):
    run(tmp_path / "one", SHOP, AS_OF)
    run(tmp_path / "two", SHOP, AS_OF + timedelta(days=1))
    good = [f"{(FIRST_DAY + timedelta(days=day)).date()}.parquet" for day in range(60)]
    for name in good:
        first, second = (tmp_path / night / "interactions" / name for night in ("one", "two"))
        assert sha256_file(first) == sha256_file(second), name
    assert (tmp_path / "two" / "interactions" / "2026-03-02.parquet").is_file()
    assert not (tmp_path / "one" / "interactions" / "2026-03-02.parquet").exists()


def test_a_source_that_changed_since_the_night_was_opened_is_refused(tmp_path: Path, csv_source: SourceSpec):
    params = IngestParams(as_of=AS_OF, source=csv_source, fingerprint=fingerprint(csv_source, AS_OF))
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("\nz,z,1\n")
    with pytest.raises(SourceError, match=r"when the night was opened.*stillhouse run"):
        ingest(snapshot=tmp_path / "snapshot", params=params, reporter=SilentReporter())
    assert not (tmp_path / "snapshot").exists()


def test_a_source_without_rows_is_refused(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\n")
    source = SourceSpec(kind="file", path=str(tmp_path / "rows.csv"))
    with pytest.raises(SourceError, match="must hold rows"):
        run(tmp_path / "snapshot", source)
