"""The ranks that an evaluation keeps, on disk: a row a target, for paired tests later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillhouse.data.files import numbers_of, read_json, read_parquet, write_json, write_parquet
from stillhouse.errors import PackageError, one_line
from stillhouse.evaluate.scoring import Scored

__all__ = ["PROTOCOLS", "Protocol", "RankRows", "Ranks", "read_ranks", "write_evaluation"]

Protocol = Literal["leave_one_out", "time_window"]
#: Leave-one-out's test targets, for comparison with papers; the time window's, for the gate.
PROTOCOLS: tuple[Protocol, ...] = ("leave_one_out", "time_window")

_SCHEMA = pa.schema(
    [("protocol", pa.string()), ("user_index", pa.int32()), ("item_index", pa.int32()), ("rank", pa.int64())]
)


@dataclass(frozen=True, eq=False)
class RankRows:
    """One protocol's targets and their ranks."""

    users: NDArray[np.int64]
    """User indices, int64 [n]."""
    items: NDArray[np.int64]
    """The targets' item indices, int64 [n]; 0 is an item that the vocabulary lacks."""
    ranks: NDArray[np.int64]
    """1-based ranks, int64 [n]; n_items + 1 is a miss."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """What one model's evaluation kept."""

    rows: dict[Protocol, RankRows]
    n_items: int
    """Items in tonight's vocabulary; a rank above it is a miss."""


def write_evaluation(
    directory: Path,
    scored: Mapping[Protocol, Scored],
    n_items: int,
    slices: Mapping[Protocol, object],
    *,
    none: bool = False,
) -> None:
    """Write ``ranks.parquet`` and ``slices.json`` into the new ``directory``.

    Args:
        directory: the evaluation; it is made.
        scored: a protocol's rows; a protocol without any may be left out.
        n_items: items in tonight's vocabulary.
        slices: protocol → slice → figures.
        none: there was no model to evaluate; ``slices.json`` says so.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tables = [_table(protocol, scored[protocol]) for protocol in PROTOCOLS if protocol in scored]
    write_parquet(directory / "ranks.parquet", pa.concat_tables(tables) if tables else _SCHEMA.empty_table())
    marked = {"none": True} if none else {}
    write_json(directory / "slices.json", {**slices, **marked, "n_items": n_items})


def read_ranks(directory: Path) -> Ranks | None:
    """Return the ranks in the evaluation ``directory``, or None where there was no model to evaluate.

    Raises:
        PackageError: a file of the evaluation is missing or damaged.
    """
    try:
        slices = read_json(directory / "slices.json")
        none, n_items = bool(slices.get("none")), int(slices["n_items"])
        table = read_parquet(directory / "ranks.parquet", _SCHEMA)
    except FileNotFoundError as error:
        raise PackageError(f"an evaluation must hold ranks.parquet and slices.json, got {error}") from None
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # Arrow's own are among them
        raise PackageError(
            one_line(f"an evaluation must be whole, found {error!r} in {directory}: run the stage evaluate again")
        ) from None
    if none:
        return None
    parts = {name: table.filter(pc.equal(table["protocol"], name)) for name in PROTOCOLS}
    return Ranks({name: _rows(part) for name, part in parts.items()}, n_items)


def _rows(table: pa.Table) -> RankRows:
    return RankRows(*(numbers_of(table[name]).astype(np.int64) for name in ("user_index", "item_index", "rank")))


def _table(protocol: Protocol, scored: Scored) -> pa.Table:
    columns = [
        pa.array([protocol] * len(scored.ranks), pa.string()),
        pa.array(scored.users, pa.int32()),
        pa.array(scored.items, pa.int32()),
        pa.array(scored.ranks, pa.int64()),
    ]
    return pa.table(columns, schema=_SCHEMA)
