"""Files come in as they are written: any cell, any order of columns, one file or many; or one clear line."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shared_data import shared

from stillhouse.data import source_csv
from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.data.shop_shape import FIRST_DAY
from stillhouse.data.sources import fingerprint, read
from stillhouse.errors import ParamsError, SourceError
from stillhouse.params.source import Columns, ItemColumns, ShopSpec, SourceSpec

AS_OF = datetime(2026, 1, 3, tzinfo=UTC)
DAY = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def spec(path: Path, **changes: object) -> SourceSpec:
    return SourceSpec(kind="file", path=str(path), **changes)  # type: ignore[arg-type]


def rows_of(source: SourceSpec) -> list[dict[str, object]]:
    return read(source, AS_OF).interactions.cast(SNAPSHOT_SCHEMA).to_pylist()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_file_is_read_as_it_is_written(tmp_path: Path):
    path = write(tmp_path / "a.csv", 'timestamp,x,item_id,user_id\n5,?,"i,1",7\n2026-01-01,?,i2,\n')
    assert [tuple(row.values()) for row in rows_of(spec(path))] == [
        ("7", "i,1", 5, None, None, None),
        (None, "i2", DAY, None, None, None),
    ]


def test_bad_cells_become_unparsed_and_good_ones_stay(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp,rating\na,x,soon,good\nb,y,6,4\n")
    first, second = rows_of(spec(path, columns=Columns(rating="rating")))
    assert json.loads(str(first["unparsed"])) == {"rating": "good", "time": "soon"}
    assert (first["time"], first["rating"]) == (None, None)
    assert (second["time"], second["rating"], second["unparsed"]) == (6, 4.0, None)


def test_lines_with_too_few_or_too_many_cells_are_kept_as_rows_that_say_so(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\na,x,1\nb,y\nc,z,3,4\nd,x,5\n")
    rows = rows_of(spec(path))
    assert [row["user_id"] for row in rows] == ["a", "d", None, None]
    assert [json.loads(str(row["unparsed"])) for row in rows[2:]] == [{"row": "b,y"}, {"row": "c,z,3,4"}]


def test_no_row_is_lost_or_moved_over_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source_csv, "_BLOCK", 1 << 12)
    lines = [f"u{number},i{number % 7},{number}" if number % 100 else f"bad{number}" for number in range(1, 5_000)]
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\n" + "\n".join(lines))
    rows = rows_of(spec(path))
    assert [row["time"] for row in rows if row["unparsed"] is None] == [n for n in range(1, 5_000) if n % 100]
    broken = [json.loads(str(row["unparsed"]))["row"] for row in rows if row["unparsed"]]
    assert sorted(broken) == sorted(f"bad{number}" for number in range(100, 5_000, 100))


def test_cells_may_hold_line_ends_quotes_and_a_byte_order_mark(tmp_path: Path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfuser_id,item_id,timestamp\r\n"a\nb","say ""x""",1\r\n')
    assert [(row["user_id"], row["item_id"]) for row in rows_of(spec(path))] == [("a\nb", 'say "x"')]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ('u3,i,3,"x', 'u9,i,9",z', "a line with too few or too many cells"),
        ('"u3,i,3', '"u9,i,9', "a cell of the user"),
        ('"u3,i,3', 'u9",i,9', "a cell of the user"),
        ('u3,i,"3', 'u9,i,9"', "a cell of the order"),
        ('u3,"i,3', 'u9,i",9', "a cell of the item"),
    ],
)
def test_a_quote_gone_astray_takes_no_rows_with_it(tmp_path: Path, first: str, second: str, what: str):
    lines = [f"u{number},i,{number}" for number in range(20)]
    lines[3], lines[9] = first, second
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    said = rf"{what} must hold no other row, found one that runs over \d lines"
    with pytest.raises(SourceError, match=said) as refused:
        rows_of(spec(path))
    assert "\n" not in str(refused.value)


def test_titles_may_run_over_lines_with_anything_in_them(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\na,x,1\n")
    items = write(tmp_path / "items.csv", 'item_id,title\nx,"one, two\nthree, four\n, and more"\n')
    made = read(spec(path, items_path=str(items), item_columns=ItemColumns(title="title")), AS_OF).items
    assert made is not None
    assert made["title"].to_pylist() == ["one, two\nthree, four\n, and more"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_with_names_and_no_row_holds_no_row(tmp_path: Path, end: str):
    write(tmp_path / "day1.csv", "user_id,item_id,timestamp\na,x,1\n")
    write(tmp_path / "day2.csv", f"user_id,item_id,timestamp{end}")
    assert [row["user_id"] for row in rows_of(spec(tmp_path))] == ["a"]


def test_a_folder_that_is_linked_to_is_read_once_and_a_loop_ends(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "source").mkdir()
    write(tmp_path / "real" / "b.csv", "user_id,item_id,timestamp\nb,x,2\n")
    write(tmp_path / "source" / "a.csv", "user_id,item_id,timestamp\na,x,1\n")
    before = fingerprint(spec(tmp_path / "source"), AS_OF)
    (tmp_path / "source" / "more").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "source" / "again").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "source" / "round").symlink_to(tmp_path / "source", target_is_directory=True)
    assert [row["user_id"] for row in rows_of(spec(tmp_path / "source"))] == ["a", "b"]
    assert fingerprint(spec(tmp_path / "source"), AS_OF) != before


def test_tabs_and_compression_go_by_the_name(tmp_path: Path):
    write(tmp_path / "a.tsv.gz", gzip.compress(b"user_id\titem_id\ttimestamp\na\tx,y\t1\n"))
    assert rows_of(spec(tmp_path / "a.tsv.gz"))[0]["item_id"] == "x,y"


def test_parquet_and_csv_of_the_same_rows_give_the_same_rows(tmp_path: Path):
    frame = pd.DataFrame(
        {
            "user_id": [1, 2, None],
            "item_id": ["x", "y", "z"],
            "timestamp": pd.to_datetime(["2026-01-01T00:00:00", "2026-01-01T00:00:05", None]),
            "stars": [4.0, None, 1.0],
            "event": ["view", "cart", None],
        }
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    columns = Columns(rating="stars", event="event")
    csv, parquet = (rows_of(spec(tmp_path / name, columns=columns)) for name in ("a.csv", "a.parquet"))
    assert csv == parquet
    assert [row["user_id"] for row in csv] == ["1", "2", None]
    assert [row["time"] for row in csv] == [DAY, DAY + 5, None]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path):
    write(tmp_path / "b.csv", "user_id,item_id,timestamp\nb,x,2\n")
    (tmp_path / "c").mkdir()
    pq.write_table(pa.table({"user_id": [3], "item_id": [4], "timestamp": [3]}), tmp_path / "c" / "c.parquet")
    write(tmp_path / "a.csv", "item_id,user_id,timestamp\nx,a,1\n")
    write(tmp_path / "_notes.csv", "nothing\n")
    write(tmp_path / "items.csv", "item_id,title\nx,X\n")
    source = spec(tmp_path, items_path=str(tmp_path / "items.csv"), item_columns=ItemColumns())
    assert [row["user_id"] for row in rows_of(source)] == ["a", "b", "3"]
    items = read(source, AS_OF).items
    assert items is not None
    assert items.to_pylist() == [{"item_id": "x", "title": "X", "text": None, "category": None}]


def test_positions_stand_in_place_of_moments(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,place\na,x,2\na,y,1\n")
    source = spec(path, columns=Columns(timestamp=None, position="place"), later_rows="leave")
    assert [row["time"] for row in rows_of(source)] == [2, 1]


def test_later_rows_are_left_or_kept_as_asked(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\na,x,2026-01-03\na,y,2026-01-04\na,z,1767225600000\n")
    assert len(rows_of(spec(path))) == 3
    # a number of milliseconds is no later day: it stays, for validation to name
    assert [row["item_id"] for row in rows_of(spec(path, later_rows="leave"))] == ["x", "z"]


def test_a_missing_column_is_named_with_those_found_and_the_close_ones(tmp_path: Path):
    path = write(tmp_path / "a.csv", "userid,item_id,timestamp\na,x,1\n")
    with pytest.raises(SourceError) as caught:
        read(spec(path), AS_OF)
    for part in ("a.csv", "'user_id'", "userid, item_id, timestamp", "did you mean userid?", "source.columns.user"):
        assert part in str(caught.value)
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="'timestamp'"):
        read(spec(tmp_path / "a.parquet"), AS_OF)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp,user_id\na,x,1,b\n")
    with pytest.raises(SourceError, match="once"):
        read(spec(path), AS_OF)


@pytest.mark.parametrize("at", [0, 30, 4_095, 4_096, 4_097, 9_000])
def test_bytes_that_are_not_utf8_are_named_by_file_and_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    monkeypatch.setattr(source_csv, "_BLOCK", 1 << 12)
    data = bytearray(b"user_id,item_id,timestamp\n" + "a,é,1\n".encode() * 2_000)
    while data[at] >= 0x80:  # a whole letter before, so that the bad byte is the one put in
        at += 1
    data[at] = 0xFF
    with pytest.raises(SourceError, match=rf"a\.csv.*UTF-8.*0xff.*offset {at}\b"):
        read(spec(write(tmp_path / "a.csv", bytes(data))), AS_OF)


def test_a_letter_cut_off_at_the_end_is_not_utf8(tmp_path: Path):
    path = write(tmp_path / "a.csv", b"user_id,item_id,timestamp\na,x\xc3")
    with pytest.raises(SourceError, match="offset 29"):
        read(spec(path), AS_OF)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path):
    bad = pa.array([b"a\xff"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"user_id": bad, "item_id": ["x"], "timestamp": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet.*UTF-8.*user_id"):
        read(spec(tmp_path / "a.parquet"), AS_OF)


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.csv", b"", "empty file"),
        ("a.csv", b"\n\n", "empty file"),
        ("a.csv", b'user_id,item_id,timestamp\na,x,1\nb,"y,2\nc,z,3\n', "quote"),
        ("a.parquet", b"", "whole Parquet file"),
        ("a.parquet", b"PAR1 and then nothing", "whole Parquet file"),
        ("a.xlsx", b"", "must end in"),
        ("a.csv.gz", b"no gzip", "must name the columns"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, data: bytes, line: str):
    with pytest.raises(SourceError, match=line) as caught:
        read(spec(write(tmp_path / name, data)), AS_OF)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_column_of_lists_is_one_clear_line(tmp_path: Path):
    pq.write_table(pa.table({"user_id": [[1]], "item_id": ["x"], "timestamp": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="text, numbers or dates"):
        read(spec(tmp_path / "a.parquet"), AS_OF)


def test_a_source_that_does_not_exist_is_said_to(tmp_path: Path):
    for source in (spec(tmp_path / "none.csv"), spec(tmp_path)):
        with pytest.raises(SourceError, match="found no"):
            fingerprint(source, AS_OF)
    with pytest.raises(ParamsError, match="path"):
        fingerprint(SourceSpec(kind="file"), AS_OF)


def test_an_item_table_that_is_missing_or_broken_is_named(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\na,x,1\n")
    with pytest.raises(SourceError, match=r"items\.csv.*source\.items_path"):
        fingerprint(spec(path, items_path=str(tmp_path / "items.csv")), AS_OF)
    items = write(tmp_path / "items.csv", "item_id,title\nx,One, two\n")
    with pytest.raises(SourceError, match=r"items\.csv.*One, two.*quote"):
        read(spec(path, items_path=str(items)), AS_OF)


def test_ids_of_ten_thousand_characters_pass_through(tmp_path: Path):
    path = write(tmp_path / "a.csv", f"user_id,item_id,timestamp\n{'u' * 10_000},x,1\n")
    assert rows_of(spec(path))[0]["user_id"] == "u" * 10_000


def test_the_fingerprint_sees_contents_items_and_columns_and_no_file_times(tmp_path: Path):
    path = write(tmp_path / "a.csv", "user_id,item_id,timestamp\na,x,1\n")
    items = write(tmp_path / "items.csv", "item_id,title\nx,X\n")
    source = spec(path, items_path=str(items))
    before = fingerprint(source, AS_OF)
    write(path, path.read_bytes())
    assert fingerprint(source, AS_OF) == before == read(source, AS_OF).fingerprint
    assert fingerprint(source, datetime(2027, 1, 1, tzinfo=UTC)) == before
    others = [
        fingerprint(spec(path), AS_OF),
        fingerprint(spec(path, items_path=str(items), columns=Columns(user="item_id", item="user_id")), AS_OF),
        fingerprint(spec(path, items_path=str(items), later_rows="leave"), AS_OF),
    ]
    write(items, "item_id,title\nx,Y\n")
    others.append(fingerprint(source, AS_OF))
    assert len({before, *others}) == 5


def test_where_later_rows_are_left_the_rows_up_to_tonight_and_the_items_are_what_counts(tmp_path: Path):
    early, late = "user_id,item_id,timestamp\na,x,1\na,y,100\n", "b,x,200\n"
    path, items = write(tmp_path / "a.csv", early + late), write(tmp_path / "items.csv", "item_id,title\nx,X\n")
    source = spec(path, items_path=str(items), later_rows="leave")
    nights = [datetime.fromtimestamp(second, UTC) for second in (99, 100, 199, 200, 10**9)]

    def prints() -> list[str]:
        found = [fingerprint(source, as_of) for as_of in nights]
        assert [read(source, as_of).fingerprint for as_of in nights] == found
        return found

    first = prints()
    assert first[1] == first[2] != first[0]
    assert first[3] == first[4] != first[2]
    write(path, early + late + "b,y,201\n")
    assert prints()[:4] == first[:4], "tomorrow's rows came: tonight is what it was"
    write(path, early + late + "b,y,\n")
    assert not set(prints()) & set(first), "a row without a moment belongs to every night"
    write(path, early + late)
    write(items, "item_id,title\nx,Y\n")
    assert not set(prints()) & set(first)


def test_the_shop_leaves_later_rows_by_whole_days_as_its_fingerprint_counts_them():
    source = SourceSpec(shop=ShopSpec(size="tiny"), later_rows="leave")
    morning, evening = (FIRST_DAY + timedelta(days=400, hours=hour) for hour in (0, 23))
    one, other = read(source, morning), read(source, evening)
    assert one.fingerprint == other.fingerprint == fingerprint(source, evening)
    assert one.interactions.equals(other.interactions)
    assert fingerprint(source, morning + timedelta(days=1)) != one.fingerprint


@pytest.mark.shared
def test_movielens_is_read_whole():
    source = spec(
        shared("ml-100k") / "interactions.csv",
        items_path=str(shared("ml-100k") / "items.csv"),
        columns=Columns(rating="rating"),
        item_columns=ItemColumns(category="genres"),
    )
    reading = read(source, AS_OF)
    assert len(reading.interactions) == 100_000
    assert reading.interactions["unparsed"].null_count == 100_000
    assert reading.interactions["time"].null_count == 0
    assert reading.items is not None
    assert reading.items.slice(0, 1).to_pylist() == [
        {"item_id": "1", "title": "Toy Story", "text": None, "category": "Animation|Children's|Comedy"}
    ]


@pytest.mark.shared
def test_yelp_gives_a_block_a_night():
    source = spec(shared("yelp-blocks") / "interactions.parquet", later_rows="leave")
    nights = [len(read(source, datetime(2024, 1, day, tzinfo=UTC)).interactions) for day in (1, 2, 3)]
    assert nights == [146_505, 146_505 + 46_207, 146_505 + 46_207 + 28_118]
