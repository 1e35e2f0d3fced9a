import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data.files import sha256_tree, write_json, write_none, write_parquet
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA
from stillhouse.errors import DataError
from stillhouse.params.admit import AdmitParams
from stillhouse.params.validate import ValidateParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.admit import admit
from stillhouse.stages.validate import validate

NOON = 1_704_110_400
PARAMS = ValidateParams(
    min_rows=50,
    min_users=5,
    min_items=5,
    earliest=date(1995, 1, 1),
    rating_min=1.0,
    rating_max=5.0,
    id_length=256,
    volume_min=0.8,
    volume_max=2.0,
    event_weights={"view": 0.4},
    as_of=datetime(2024, 1, 2, tzinfo=UTC),
)


def good(n=100):
    """Return n rows of 10 users and 10 items in a source of ratings without events."""
    return [{"user_id": f"u{r % 10}", "item_id": f"i{r // 10 % 10}", "time": NOON + r, "rating": 3.0} for r in range(n)]


@pytest.fixture
def night(tmp_path):
    """Give a function that validates rows and returns the folder of all outputs."""

    def run(rows, *, last_night=None, items=None, name="night", **header):
        base = tmp_path / name
        snapshot = base / "snapshot"
        (snapshot / "interactions").mkdir(parents=True)
        write_parquet(
            snapshot / "interactions" / "2024-01-01.parquet", pa.Table.from_pylist(rows, schema=SNAPSHOT_SCHEMA)
        )
        if items is not None:
            table = pa.Table.from_pylist([{"item_id": item} for item in items], schema=ITEM_SCHEMA)
            write_parquet(snapshot / "items.parquet", table)
        about = {"order": "timestamp", "rows": len(rows), "has_rating": True, "has_event": False}
        write_json(snapshot / "snapshot.json", {**about, "has_items": items is not None, **header})
        write_none(base / "previous")
        if last_night is not None:
            (base / "previous" / "none.json").unlink()
            write_json(base / "previous" / "profile.json", {"rows": last_night})
        out = base / "out"
        out.mkdir()
        folders = {path: out / path for path in ("accepted", "quarantine", "profile", "data_docs")}
        metrics = validate(
            snapshot=snapshot,
            previous_profile=base / "previous",
            verdict=out / "verdict.json",
            **folders,
            params=PARAMS,
            reporter=SilentReporter(),
        )
        return out, metrics

    return run


def line(out):
    """The line with which admit stops the night that validate left in ``out``."""
    params = AdmitParams(max_quarantined=0.05)
    with pytest.raises(DataError) as stopped:
        admit(verdict=out / "verdict.json", admitted=out / "admitted.json", params=params, reporter=SilentReporter())
    assert not (out / "admitted.json").exists()
    text = str(stopped.value)
    assert "\n" not in text
    return text


def changed(rows, **cells):
    return [{**row, **cells} for row in rows]


def test_a_good_night_is_let_in(night):
    out, metrics = night(good(), last_night=100, items=[f"i{item}" for item in range(10)])
    assert metrics == {
        "snapshot_rows": 100,
        "accepted_rows": 100,
        "quarantined_rows": 0,
        "quarantined_share": 0.0,
        "users": 10,
        "items": 10,
        "failed_checks": 0,
    }
    params = AdmitParams(max_quarantined=0.0)
    admit(verdict=out / "verdict.json", admitted=out / "admitted.json", params=params, reporter=SilentReporter())
    assert json.loads((out / "admitted.json").read_text())["accepted_rows"] == 100


def test_all_outputs_but_the_data_docs_are_the_same_bytes_from_run_to_run(night):
    rows = good(80) + changed(good(3), rating=9.0)
    (one, _), (two, _) = night(rows, name="one"), night(rows, name="two")
    for name in ("accepted", "quarantine", "profile", "verdict.json"):
        assert sha256_tree(one / name) == sha256_tree(two / name)
    assert (one / "data_docs" / "index.html").is_file()


def test_evidence_is_kept_where_nothing_may_enter(night):
    out, metrics = night(changed(good(), user_id=None))
    assert (metrics["accepted_rows"], metrics["quarantined_rows"]) == (0, 100)
    assert pq.read_table(out / "quarantine" / "rows.parquet")["reason"].to_pylist() == ["user_id missing"] * 100
    assert json.loads((out / "profile" / "profile.json").read_text())["rows"] == 0


BAD_NIGHTS = {
    "text where numbers belong": (
        {"rows": changed(good(), rating=None, unparsed='{"rating": "five"}')},
        "rating must be readable as a number, found 100 of 100 rows whose cell is not "
        "(first: interactions/2024-01-01.parquet row 0, rating 'five'): repair the cells",
    ),
    "no rows": ({"rows": []}, "a night must have at least 50 accepted rows, found none: the source has no rows"),
    "null ids": (
        {"rows": good(90) + changed(good(10), user_id=None)},
        "user_id must be present, found 10 of 100 rows without one (null or blank) "
        "(first: interactions/2024-01-01.parquet row 90, user_id null): fill the cells",
    ),
    "future timestamps": (
        {"rows": good(90) + changed(good(10), time=NOON + 10**7)},
        "timestamps must not be after the night's as_of 2024-01-02T00:00:00Z, found 10 of 100 rows after it (first: ",
    ),
    "milliseconds": (
        {"rows": [{**row, "time": row["time"] * 1000} for row in good()]},
        "timestamps must be seconds since 1970, found 100 of 100 rows that look like milliseconds "
        "(first: interactions/2024-01-01.parquet row 0, time 1704110400000): divide the column by 1000",
    ),
    "microseconds": (
        {"rows": [{**row, "time": row["time"] * 10**6} for row in good()]},
        "timestamps must be seconds since 1970, found 100 of 100 rows that look like microseconds",
    ),
    "every row a duplicate": (
        {"rows": changed(good(), user_id="u", item_id="i", time=NOON)},
        "user, item and timestamp together must not repeat, found 99 of 100 rows that repeat an earlier one "
        "(first: interactions/2024-01-01.parquet row 1, item_id 'i'): export each event once",
    ),
    "one user": (
        {"rows": changed(good(), user_id="u")},
        "a night must have at least 5 users, found 1 in 100 accepted rows (column user_id): check that source.columns",
    ),
    "one item": (
        {"rows": changed(good(), item_id="i")},
        "a night must have at least 5 items, found 1 in 100 accepted rows (column item_id): check that source.columns",
    ),
    "NaN ratings": (
        {"rows": changed(good(), rating=float("nan"))},
        "ratings must be numbers, found 100 of 100 rows with NaN",
    ),
    "NaN ratings that Parquet wrote as null": (
        {"rows": changed(good(), rating=None)},
        "every row must have a rating where the source has a rating column and no event types, found 100 of 100 rows "
        "without one (empty or NaN)",
    ),
    "NaN ratings beside events": (
        {"rows": changed(good(), rating=None, event="view"), "has_event": True},
        "some accepted rows must have a rating where the source has a rating column, found none in 100",
    ),
    "item table that lacks items": (
        {"rows": good(), "items": ["i1", "i2"]},
        "every item must be in the item table, found 80 of 100 rows whose item is not "
        "(first: interactions/2024-01-01.parquet row 0, item_id 'i0'): add the missing items to the item table",
    ),
    "ids of 10,000 characters": (
        {"rows": good(80) + changed(good(20), user_id="x" * 10_000)},
        "user_id must have at most 256 characters, found 20 of 100 rows with longer ones (first: interactions/"
        f"2024-01-01.parquet row 80, user_id '{'x' * 40}…' (10,000 characters)): check that source.columns names",
    ),
    "half the volume of last night": (
        {"rows": good(), "last_night": 200},
        "tonight's accepted rows must be 0.8 to 2 times last night's 200, found 100 (0.50 times): "
        "is the source cut off? If it is meant, widen validate.volume_min",
    ),
}


@pytest.mark.parametrize("what", BAD_NIGHTS)
def test_a_bad_night_is_stopped_by_one_line_that_says_why(night, what):
    arguments, beginning = BAD_NIGHTS[what]
    out, _ = night(**arguments)
    assert line(out).startswith(beginning)
