"""Where interactions come from and what their columns are called."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic_core import PydanticCustomError

from stillhouse.params.base import NOT_SHOWN, Frozen, holds_secret

__all__ = ["PASSWORD", "Columns", "ItemColumns", "ShopSpec", "SourceSpec"]

#: The environment variable that holds the password of any database.
PASSWORD = "STILLHOUSE_SOURCE_PASSWORD"  # noqa: S105


class Columns(Frozen):
    """Column names of the interactions; ``null`` where the source has none."""

    user: str = "user_id"
    """Who."""
    item: str = "item_id"
    """What."""
    timestamp: str | None = "timestamp"
    """Seconds since 1970 (UTC), or an ISO date and time."""
    position: str | None = None
    """Order within a user's history, where there are no timestamps."""
    rating: str | None = None
    """How much they liked it."""
    event: str | None = None
    """What they did, such as view or purchase."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Columns:
        if (self.timestamp is None) == (self.position is None):
            raise ValueError("exactly one of timestamp and position must name a column")
        return self


class ItemColumns(Frozen):
    """Column names of the item table; ``null`` where it has none."""

    item: str = "item_id"
    """The item's id, as interactions have it."""
    title: str | None = "title"
    """What a list of recommendations shows."""
    text: str | None = None
    """What is said of it."""
    category: str | None = None
    """One or several."""
    separator: str = "|"
    """What stands between several categories of one item."""


class ShopSpec(Frozen):
    """The built-in shop; see `stillhouse.data.shop`."""

    size: Literal["tiny", "default", "large", "huge"] = "default"
    """Users, items and rows by a name."""
    seed: int = pydantic.Field(7, ge=0)
    """Of what is generated."""
    users: int | None = pydantic.Field(None, ge=10)
    """Users at the end of the first sixty days; ``null``: the size's own."""
    items: int | None = pydantic.Field(None, ge=20)
    """Items at the end of the first sixty days; ``null``: the size's own."""
    rows: int | None = pydantic.Field(None, ge=100)
    """Rows over the first sixty days; ``null``: the size's own."""


class SourceSpec(Frozen):
    """One source: the built-in shop, files, or a database."""

    kind: Literal["shop", "file", "sql"] = "shop"
    """Where rows come from."""
    shop: ShopSpec = ShopSpec()
    """Which built-in shop (kind: shop)."""
    path: str | None = None
    """A CSV or Parquet file, or a folder of them (kind: file)."""
    items_path: str | None = None
    """The item table, CSV or Parquet (kind: file); optional."""
    url: str | None = None
    """An SQLAlchemy URL (kind: sql), without a password whatever the kind: credentials come from the environment."""
    query: str | None = None
    """A SELECT; ``:as_of`` in it is bound to the night's ``as_of`` in seconds (kind: sql)."""
    items_query: str | None = None
    """A SELECT of the item table (kind: sql); optional."""
    columns: Columns = Columns()
    """What columns of the interactions are called."""
    item_columns: ItemColumns = ItemColumns()
    """What columns of the item table are called."""
    later_rows: Literal["quarantine", "leave"] = "quarantine"
    """Rows after ``as_of``: bad rows, or tomorrow's, left in the source for a later night."""

    @pydantic.field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        """Refuse a password before the URL is written anywhere: a night keeps its source for good."""
        if url is not None and holds_secret(url):
            advice = f"it would end in dvc.lock; take it out and set {PASSWORD} (or PGPASSWORD) in the environment"
            raise PydanticCustomError(NOT_SHOWN, "must hold no password, found one", {"advice": advice})
        if url is not None and "://" not in url:  # what it is instead may be secret: nothing of it is shown
            raise PydanticCustomError(NOT_SHOWN, "must be an SQLAlchemy URL such as postgresql://host/database")
        return url
