"""Interactions and items from a database, through SQLAlchemy.

The URL names server and database and never a password: it would end in
``dvc.lock``. Credentials come from the environment: what the driver reads by
itself (``PGUSER``, ``PGPASSWORD``, ``PGPASSFILE`` …), or for any database
``STILLHOUSE_SOURCE_USER`` and ``STILLHOUSE_SOURCE_PASSWORD``. On PostgreSQL both
queries run in one read-only transaction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA, gather, in_canonical_order, interactions_of, items_of
from stillhouse.data.source_columns import interaction_roles, item_roles, require
from stillhouse.errors import ParamsError, SourceError, one_line
from stillhouse.params.source import PASSWORD, SourceSpec

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

__all__ = ["USER", "check_url", "read_sql"]

#: The environment variable that holds the user's name for any database, where the URL has none.
USER = "STILLHOUSE_SOURCE_USER"

#: PostgreSQL's ``:as_of::type``, which SQLAlchemy would not take for a name to bind.
_CAST = re.compile(r"(?<![:\w\\]):as_of(?=::)")
_ROWS = 50_000
#: Seconds until a server that does not answer counts as down.
_PATIENCE = 10


def check_url(url: str | None) -> URL:
    """Return the URL of a source, or refuse it; no error repeats any part of it.

    `SourceSpec` has refused a URL with a password in it.

    Raises:
        ParamsError: there is none, or it is no SQLAlchemy URL.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if url is None:
        raise ParamsError("url must name a database for a source of kind sql, found nothing (source.url)")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ParamsError("url must be an SQLAlchemy URL such as postgresql://host/database (source.url)") from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def read_sql(source: SourceSpec, as_of: datetime) -> tuple[pa.Table, pa.Table | None]:
    """Return interactions and items, each in an order that does not depend on the server's.

    Raises:
        ParamsError: the URL or the query is missing or refused.
        SourceError: the database is down, refuses the query or lacks a column.
    """
    url = check_url(source.url)
    if source.query is None:
        raise ParamsError("query must be a SELECT for a source of kind sql, found nothing (source.query)")
    position = source.columns.position is not None
    separator = source.item_columns.separator
    items: pa.Table | None = None
    with _connection(url) as connection:
        roles = interaction_roles(source.columns)
        chunks = [
            _checked(lambda c: interactions_of(c, position=position, typed=True), cells)
            for cells in _cells(connection, source.query, roles, "columns", as_of)
        ]
        if source.items_query is not None:
            roles = item_roles(source.item_columns)
            parts = [
                _checked(lambda c: items_of(c, separator=separator, typed=True), cells)
                for cells in _cells(connection, source.items_query, roles, "item_columns", as_of)
            ]
            items = in_canonical_order(gather(parts, ITEM_SCHEMA))
    return in_canonical_order(gather(chunks, SNAPSHOT_SCHEMA)), items


def _checked(convert: Any, cells: dict[str, pa.Array]) -> pa.Table:
    try:
        return convert(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise SourceError(one_line(f"columns of the query must hold text, numbers or dates: {error}")) from None


@contextmanager
def _connection(url: URL) -> Iterator[Connection]:
    """Open one read-only transaction; every failure of the database is one line without the password."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise SourceError(f"the source must exist, found no SQLite file at {url.database} (source.url)")
    postgres = url.get_backend_name() == "postgresql"
    url = url.set(username=url.username or os.environ.get(USER), password=os.environ.get(PASSWORD))
    try:
        engine = create_engine(url, connect_args={"connect_timeout": _PATIENCE} if postgres else {})
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ParamsError(
            one_line(f"url must name a database whose driver is installed: {error} (source.url)")
        ) from None
    try:
        plain = engine.connect()
    except SQLAlchemyError as error:
        server = f"{url.host or 'this machine'}{f':{url.port}' if url.port else ''}, database {url.database}"
        raise SourceError(
            _without_secrets(f"the source must answer ({url.get_backend_name()} at {server}): {_said(error)}")
        ) from None
    try:
        with plain:
            options: dict[str, Any] = {"stream_results": True, "yield_per": _ROWS}
            if postgres:
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            connection = plain.execution_options(**options)
            if url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            yield connection
            connection.rollback()
    except SQLAlchemyError as error:
        raise SourceError(
            _without_secrets(f"the source must run the query (source.query, source.items_query): {_said(error)}")
        ) from None
    finally:
        engine.dispose()


def _said(error: Exception) -> object:
    """Return what the database itself said, without SQLAlchemy's copy of the statement."""
    return getattr(error, "orig", None) or error


def _cells(
    connection: Connection, query: str, roles: dict[str, str], section: str, as_of: datetime
) -> Iterator[dict[str, pa.Array]]:
    from sqlalchemy import text

    statement = text(_CAST.sub("(:as_of)", query))
    names = set(statement.compile().params)
    if names - {"as_of"}:
        raise ParamsError(
            f"a query may name :as_of alone, found :{', :'.join(sorted(names - {'as_of'}))}; write \\: for a colon"
        )
    moment = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    result = connection.execute(statement, {"as_of": int(moment.timestamp())} if names else {})
    if not result.returns_rows:
        raise ParamsError("a query must return rows: write a SELECT (source.query, source.items_query)")
    found = list(result.keys())
    require(roles, found, "the query", section)
    places = {role: found.index(name) for role, name in roles.items()}
    for rows in result.partitions(_ROWS):
        yield {role: _array([row[place] for row in rows]) for role, place in places.items()}


def _array(values: list[Any]) -> pa.Array:
    """Turn a driver's values into Arrow; what Arrow has no one type for becomes text."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array([_text(value) for value in values], pa.string())
    if isinstance(array.type, pa.BaseExtensionType):
        return pa.array([_text(value) for value in values], pa.string())
    if pa.types.is_date(array.type) and any(isinstance(value, datetime) for value in values):
        # A day among moments stands for its first one; as days the moments would lose their time.
        return _array([datetime.combine(value, time()) if type(value) is date else value for value in values])
    return array


def _text(value: object) -> str | None:
    """Return a value of a column of mixed types as the same value of a column of text.

    Raises:
        SourceError: it is bytes, which are no text.
    """
    if isinstance(value, bytes | memoryview):
        raise SourceError(
            f"a column of a query must hold text or numbers, found {bytes(value)[:16]!r} among others: "
            "cast it in the query"
        )
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def _without_secrets(text: str) -> str:
    for name in (PASSWORD, "PGPASSWORD"):
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return one_line(text)
