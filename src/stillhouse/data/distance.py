"""How far two versions of one file are from each other, in the terms of what it holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["how_far"]


def how_far(name: str, before: bytes, after: bytes) -> str:
    """Return one line on how ``after`` differs from ``before``.

    Args:
        name: the file's name; its ending says how it is read (``.json``, ``.parquet``, ``.npy``, ``.safetensors``).
        before: its bytes then.
        after: its bytes now.

    >>> how_far("a.json", b'{"x": 1.0}', b'{"x": 1.5}')
    'largest difference 0.5 (x)'
    """
    if before == after:
        return "byte for byte the same"
    reader = _READERS.get(name.rpartition(".")[2])
    try:
        if reader is not None:
            return _numbers(reader(before), reader(after))
    except (ValueError, KeyError, pa.ArrowException):
        pass
    return f"other bytes ({len(before):,} and {len(after):,})"


def _numbers(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if before.keys() != after.keys():
        return f"other parts: {', '.join(sorted(before.keys() ^ after.keys())[:3])}"
    largest, where, others = -1.0, "", []
    for name, one in before.items():
        a, b = np.asarray(one), np.asarray(after[name])
        if a.shape != b.shape:
            return f"{name} has other dimensions: {a.shape} and {b.shape}"
        if not (np.issubdtype(a.dtype, np.number) and np.issubdtype(b.dtype, np.number)):
            if not np.array_equal(a, b):
                others.append(name)
            continue
        difference = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
        if difference > largest:
            largest, where = difference, name
    told = [f"largest difference {largest:.3g} ({where})"] if largest > 0 else []
    if others:
        told.append(f"other values in {', '.join(others[:3])}")
    return "; ".join(told) or "the same values, written otherwise"


def _json(data: bytes) -> dict[str, Any]:
    return dict(_flat(json.loads(data), ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{index}]")
    else:
        yield name, value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _parquet(data: bytes) -> dict[str, Any]:
    table = pq.read_table(io.BytesIO(data))
    return {name: table[name].to_numpy() for name in table.column_names}


def _npy(data: bytes) -> dict[str, Any]:
    return {"array": np.load(io.BytesIO(data), allow_pickle=False)}


def _safetensors(data: bytes) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


_READERS = {"json": _json, "parquet": _parquet, "npy": _npy, "safetensors": _safetensors}
