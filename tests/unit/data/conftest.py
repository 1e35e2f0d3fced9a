"""A snapshot in a few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stillhouse.data.files import write_json, write_parquet
from stillhouse.data.rows import ITEM_SCHEMA, SNAPSHOT_SCHEMA

GOOD = {"rating": 3.0, "event": "view"}


@pytest.fixture
def make_snapshot(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a snapshot: ``make_snapshot({"2024-01-01": [{"user_id": "ann", …}]})`` → folder.

    A row is good but for what it names: its user is ``u`` and its item ``i`` with the row's number modulo 5,
    its time noon of 2024-01-01 plus the row's number in seconds.
    """

    def make(
        days: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        order: str = "timestamp",
        has_rating: bool = True,
        has_event: bool = True,
        items: Sequence[str | None] | None = None,
        name: str = "snapshot",
    ) -> Path:
        folder = tmp_path / name
        (folder / "interactions").mkdir(parents=True)
        number = 0
        for day, rows in days.items():
            full = []
            for row in rows:
                ids = {"user_id": f"u{number % 5}", "item_id": f"i{number % 5}"}
                full.append({**ids, "time": 1_704_110_400 + number, **GOOD, **row})
                number += 1
            table = pa.Table.from_pylist(full, schema=SNAPSHOT_SCHEMA)
            write_parquet(folder / "interactions" / f"{day}.parquet", table)
        if items is not None:
            full_items = pa.Table.from_pylist([{"item_id": one} for one in items], schema=ITEM_SCHEMA)
            write_parquet(folder / "items.parquet", full_items)
        header = {"order": order, "rows": number, "has_rating": has_rating, "has_event": has_event}
        write_json(folder / "snapshot.json", {**header, "has_items": items is not None})
        return folder

    return make
