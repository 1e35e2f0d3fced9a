"""The built-in shop as a source: a generated store that is worth learning from.

Users with tastes that drift, items in series with titles and categories, a long
tail, sequences whose order matters, new users and items every day, events of
several types, some ratings, and about one bad row in a hundred. It opens on
1 January 2026; the first night comes after sixty days, and it goes on. Day d is
drawn from the seed and d alone and from the days before it: the rows up to one
night are the first rows of the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillhouse.data.rows import SNAPSHOT_SCHEMA, gather
from stillhouse.data.shop_catalogue import Catalogue
from stillhouse.data.shop_days import EVENTS, live
from stillhouse.data.shop_dirt import Rows, with_dirt
from stillhouse.data.shop_shape import FIRST_DAY, days_before, first_as_of, shape_of
from stillhouse.data.shop_words import item_id, item_table
from stillhouse.errors import SourceError
from stillhouse.params.source import ShopSpec

__all__ = ["VERSION", "deliveries", "first_as_of", "shop_fingerprint", "shop_items", "shop_rows"]

#: Part of the fingerprint: another version draws other rows from the same seed.
VERSION = 1

_EVENT_NAMES = pa.array([*EVENTS, "glance"])
_UNKNOWN_ITEM = "i-unknown"


def shop_fingerprint(spec: ShopSpec, as_of: datetime) -> str:
    """Return the digest of the shop's settings, its version and the days before ``as_of``."""
    facts = {"version": VERSION, "shop": spec.model_dump(), "days": _days(as_of)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def shop_rows(spec: ShopSpec, as_of: datetime) -> pa.Table:
    """Return every row of the whole days before ``as_of``, bad ones among them, in order of arrival.

    Raises:
        SourceError: ``as_of`` lies before the end of the shop's first day.
        ParamsError: ``spec`` asks for more rows than its users have time for.
    """
    users, items = _names("u", 6, 0), _item_names(0)
    chunks = []
    for rows, shop_users, catalogue in islice(deliveries(spec), _days(as_of)):
        users, items = _names("u", 6, shop_users), _item_names(len(catalogue))
        chunks.append(_table(rows, users, items))
    return gather(chunks, SNAPSHOT_SCHEMA)


def shop_items(spec: ShopSpec, as_of: datetime) -> pa.Table:
    """Return the item table: everything put on sale before ``as_of``."""
    catalogue = Catalogue(shape_of(spec))
    for day in range(_days(as_of)):
        catalogue.open_day(day)
    return item_table(catalogue)


def deliveries(spec: ShopSpec) -> Iterator[tuple[Rows, int, Catalogue]]:
    """Give each day's rows with how many users there are by then and the catalogue, without end.

    The catalogue is the same object each day and grows.
    """
    shape = shape_of(spec)
    catalogue, bad = Catalogue(shape), 0
    for day in live(shape, catalogue):
        rows, bad = with_dirt(day, shape.seed, bad)
        yield rows, shape.users_on(day.number), catalogue


def _days(as_of: datetime) -> int:
    days = days_before(as_of)
    if not days:
        raise SourceError(
            f"the shop opens on {FIRST_DAY.date()} and delivers at midnight (UTC), found as_of {as_of.isoformat()}: "
            "give a later --as-of"
        )
    return days


def _table(rows: Rows, users: pa.Array, items: pa.Array) -> pa.Table:
    user = pa.DictionaryArray.from_arrays(_codes(rows.user, rows.user < 0), users)
    unknown = len(items) - 1
    item = pa.DictionaryArray.from_arrays(_codes(np.where(rows.item == -2, unknown, rows.item), rows.item == -1), items)
    event = pa.DictionaryArray.from_arrays(pa.array(rows.event.astype(np.int32)), _EVENT_NAMES)
    rating = pa.array(rows.rating, mask=np.isnan(rows.rating))
    nothing = pa.DictionaryArray.from_arrays(pa.nulls(len(rows.user), pa.int32()), pa.array([], pa.string()))
    return pa.table([user, item, pa.array(rows.time), rating, event, nothing], names=SNAPSHOT_SCHEMA.names)


def _codes(values: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(np.maximum(values, 0).astype(np.int32), mask=missing)


def _names(letter: str, width: int, count: int) -> pa.Array:
    return pa.array([f"{letter}{number:0{width}d}" for number in range(count)], pa.string())


def _item_names(count: int) -> pa.Array:
    return pa.array([*(item_id(number) for number in range(count)), _UNKNOWN_ITEM], pa.string())
