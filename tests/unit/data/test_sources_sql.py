"""A database gives the same rows as a file, read-only, with credentials from the environment alone."""

from __future__ import annotations

import sqlite3
import traceback
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pydantic
import pytest

from stillhouse.data import source_sql
from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.data.source_sql import check_url
from stillhouse.data.sources import fingerprint, read
from stillhouse.errors import ParamsError, SourceError
from stillhouse.params.base import build
from stillhouse.params.source import Columns, SourceSpec

AS_OF = datetime(2026, 1, 3, tzinfo=UTC)
ROWS = [("b", 2, 20, 4.5, "view"), ("a", 1, 10, None, "cart"), (None, 1, 10, None, "view"), ("a", 2, None, 1.0, None)]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table rows (user_id, item_id, timestamp, rating, event)")
        connection.executemany("insert into rows values (?, ?, ?, ?, ?)", ROWS)
        connection.execute("create table items (item_id, title)")
        connection.executemany("insert into items values (?, ?)", [(2, "two"), (1, "one")])
    return path


def spec(database: Path, query: str = "select * from rows", **changes: object) -> SourceSpec:
    columns = Columns(rating="rating", event="event")
    return SourceSpec(kind="sql", url=f"sqlite:///{database}", query=query, columns=columns, **changes)  # type: ignore[arg-type]


def test_rows_come_sorted_whatever_the_servers_order(database: Path):
    one = read(spec(database, items_query="select * from items"), AS_OF)
    other = read(
        spec(
            database, "select * from rows order by item_id desc, rating", items_query="select * from items order by 2"
        ),
        AS_OF,
    )
    assert one.interactions.cast(SNAPSHOT_SCHEMA).equals(other.interactions.cast(SNAPSHOT_SCHEMA))
    assert one.fingerprint == other.fingerprint == fingerprint(spec(database, items_query="select * from items"), AS_OF)
    assert [tuple(row.values())[:5] for row in one.interactions.cast(SNAPSHOT_SCHEMA).to_pylist()] == [
        ("a", "1", 10, None, "cart"),
        (None, "1", 10, None, "view"),
        ("b", "2", 20, 4.5, "view"),
        ("a", "2", None, 1.0, None),
    ]
    assert one.items is not None
    assert one.items["title"].to_pylist() == ["one", "two"]


def test_the_fingerprint_sees_a_changed_cell_and_a_changed_item(database: Path):
    source = spec(database, items_query="select * from items")
    seen = {fingerprint(source, AS_OF)}
    for change in (
        "update rows set rating = 2 where user_id = 'b'",
        "update items set title = 'zwei' where item_id = 2",
    ):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(change)
        seen.add(fingerprint(source, AS_OF))
    assert len(seen) == 3


def test_as_of_is_bound_where_the_query_names_it(database: Path):
    source = spec(database, "select * from rows where timestamp < :as_of - 1767398385")
    assert int(AS_OF.timestamp()) - 1767398385 == 15
    assert read(source, AS_OF).interactions["user_id"].to_pylist().count("b") == 0


def test_cells_of_several_types_in_one_column_are_read(database: Path):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("insert into rows values (x'61', 'i', '2026-01-01', 'good', 7)")
    rows = read(spec(database), AS_OF).interactions.cast(SNAPSHOT_SCHEMA).to_pylist()
    assert next(row for row in rows if row["unparsed"])["time"] == 1_767_225_600


def test_a_query_cannot_write(database: Path):
    for query in ("delete from rows", "insert into rows (user_id) values ('x') returning *"):
        with pytest.raises((SourceError, ParamsError)):
            read(spec(database, query), AS_OF)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from rows").fetchone() == (4,)


def test_a_missing_column_and_a_broken_query_are_one_line(database: Path):
    with pytest.raises(SourceError, match=r"'user_id'.*userid.*source\.columns\.user"):
        read(spec(database, "select user_id as userid, item_id, timestamp, rating, event from rows"), AS_OF)
    with pytest.raises(SourceError, match="no such table"):
        read(spec(database, "select * from absent"), AS_OF)
    with pytest.raises(ParamsError, match=":tonight"):
        read(spec(database, "select * from rows where timestamp < :tonight"), AS_OF)
    with pytest.raises(ParamsError, match="query"):
        read(SourceSpec(kind="sql", url=f"sqlite:///{database}"), AS_OF)


def test_a_database_file_that_does_not_exist_is_not_made(tmp_path: Path):
    with pytest.raises(SourceError, match="no SQLite file"):
        read(spec(tmp_path / "none.db"), AS_OF)
    assert not (tmp_path / "none.db").exists()


def test_a_later_night_is_new_only_when_rows_came_in_between(database: Path):
    query = "select * from rows where timestamp is null or timestamp <= :as_of"
    nights = {moment: datetime.fromtimestamp(moment, UTC) for moment in (9, 10, 15, 20)}
    for source in (spec(database, query), spec(database, later_rows="leave")):
        found = {moment: fingerprint(source, as_of) for moment, as_of in nights.items()}
        assert found[10] == found[15]
        assert len(set(found.values())) == 3
        assert [read(source, as_of).fingerprint for as_of in nights.values()] == list(found.values())


@pytest.mark.parametrize("kind", ["sql", "file", "shop"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@localhost/shop",
        "postgresql://:hunter2@localhost/shop",
        "postgresql://me:@hunter2@localhost/shop",
        "postgresql://me:hunter2/3@localhost/shop",
        "postgresql://me:hunter2?@localhost/shop",
        "postgresql://me:h%75nter2@localhost/shop",
        "postgresql://me%3Ahunter2@localhost/shop",
        "postgresql://corp/me:hunter2@localhost/shop",
        "postgresql://localhost/shop?sslpassword=hunter2",
        "postgresql://localhost/shop?p%61ssword=hunter2",
        "postgresql://localhost/shop?options=x&PASSWORD=hunter2",
        "mysql://localhost/shop?pass=hunter2",
        "snowflake://me@account/shop?token=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%253Dx%253BPWD%253Dhunter2",
        "me:hunter2@localhost/shop",
        "postgresql+psycopg://localhost/shop?password=hunter2",
        "mysql://localhost/shop?passwd=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhunter2",
        "postgresql://me:hunter2@localhost:notaport/shop",
        "hunter2",
    ],
)
def test_a_password_in_the_url_is_refused_whatever_the_kind_and_never_repeated(url: str, kind: str):
    with pytest.raises(ParamsError) as caught:
        build(SourceSpec, {"kind": kind, "url": url, "query": "select 1"}, "params.yaml: source")
    assert "params.yaml: source.url" in str(caught.value)
    assert url == "hunter2" or "STILLHOUSE_SOURCE_PASSWORD (or PGPASSWORD) in the environment" in str(caught.value)
    assert "unter2" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(pydantic.ValidationError) as raw:
        SourceSpec(kind=kind, url=url)  # type: ignore[arg-type]
    assert "unter2" not in str(raw.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///C:/me@home/shop.db",
        "sqlite:////srv/a:b@c/shop.db",
        "postgresql://me@localhost:5432/shop?application_name=a%40b",
        "postgresql://me@/shop?host=one:5432&host=two:5433&passfile=/home/me/.pgpass",
        "postgresql://me:@localhost/shop",
    ],
)
def test_a_url_without_a_password_is_taken(url: str):
    assert build(SourceSpec, {"kind": "sql", "url": url}, "params.yaml: source").url == url


def test_a_url_with_a_user_alone_is_taken_and_postgres_goes_through_psycopg():
    url = check_url("postgresql://me@localhost/shop")
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "me", None)
    with pytest.raises(ParamsError, match="url"):
        check_url(None)
    with pytest.raises(ParamsError, match="must be an SQLAlchemy URL") as caught:
        check_url("postgresql://localhost:hunter2/shop")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_database_is_one_line():
    with pytest.raises(ParamsError, match="driver"):
        read(SourceSpec(kind="sql", url="oracle9://localhost/shop", query="select 1"), AS_OF)


def test_a_database_that_is_down_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STILLHOUSE_SOURCE_PASSWORD", "hunter2")
    monkeypatch.setenv("PGPASSWORD", "hunter3")
    source = SourceSpec(kind="sql", url="postgresql://me@127.0.0.1:1/shop", query="select 1")
    with pytest.raises(SourceError) as caught:
        fingerprint(source, AS_OF)
    assert "must answer (postgresql at 127.0.0.1:1, database shop)" in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_is_one_whatever_its_column_holds_beside_it():
    assert source_sql._array([1, "1", 1.0, 2**63, None]).to_pylist() == ["1", "1", "1", str(2**63), None]


def test_a_day_among_moments_takes_no_time_from_them():
    day, moment = date(2026, 1, 1), datetime(2026, 1, 2, 12)
    assert source_sql._array([day, moment]).to_pylist() == [datetime(2026, 1, 1), moment]


def test_bytes_among_other_values_are_refused():
    with pytest.raises(SourceError, match=r"found b'.*' among others: cast it in the query"):
        source_sql._array([1, b"\xff"])
