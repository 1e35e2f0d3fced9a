"""What a soft-target store looks like on disk (docs/soft-targets.md, version 1).

::

    store.json             the header: whose targets these are, and the digest of every file
    index.safetensors      offsets int64 [n_users + 1], first int64 [n_users]
    shard-00000.safetensors …   one row a position, users in order, steps in order

A shard's rows hold raw teacher scores: ``items`` and ``scores`` of the top k
unseen items, ``tail_lse`` of everything unseen beyond them at each temperature,
and ``tail_items`` drawn beyond them with the log-probability of each draw.
Scores stand relative to the position's best one, ``peak``: a float16 is then
exact where the probability is, whatever constant a teacher adds to its scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from stillhouse.data.files import read_json
from stillhouse.errors import StoreError, one_line

__all__ = [
    "FORMAT",
    "HEADER",
    "INDEX",
    "VERSION",
    "ShardEntry",
    "StoreHeader",
    "item_dtype",
    "read_header",
    "shard_name",
]

FORMAT = "stillhouse soft targets"
VERSION = 1
HEADER = "store.json"
INDEX = "index.safetensors"


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class ShardEntry(_Entry):
    """One shard in the header."""

    file: str = pydantic.Field(pattern=r"^shard-\d{5,}\.safetensors$")
    positions: int = pydantic.Field(ge=0)
    bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")


class StoreHeader(_Entry):
    """Whose soft targets these are, how they were cut, and the digest of every file."""

    format: str
    version: int
    teacher: str
    """SHA-256 of the teacher's ``model.safetensors``."""
    vocabulary: str
    """Digest of the vocabulary whose indices the items are."""
    n_items: int = pydantic.Field(ge=1)
    n_users: int = pydantic.Field(ge=0)
    length: int = pydantic.Field(ge=1)
    """Most positions a user, the last ones of the training rows."""
    k: int = pydantic.Field(ge=1)
    tail_samples: int = pydantic.Field(ge=0)
    temperatures: tuple[float, ...] = pydantic.Field(min_length=1, strict=False)
    repeat_items: bool
    """Whether items that a user has already taken are among the targets."""
    positions: int = pydantic.Field(ge=0)
    index_sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    shards: tuple[ShardEntry, ...] = pydantic.Field(strict=False)

    def shapes(self, positions: int) -> Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return name → (dtype, shape) of the tensors in a shard of ``positions`` rows."""
        item, half, single = item_dtype(self.n_items), np.dtype(np.float16), np.dtype(np.float32)
        return {
            "items": (item, (positions, self.k)),
            "scores": (half, (positions, self.k)),
            "peak": (single, (positions,)),
            "tail_lse": (single, (positions, len(self.temperatures))),
            "tail_items": (item, (positions, self.tail_samples)),
            "tail_scores": (half, (positions, self.tail_samples)),
            "tail_logq": (single, (positions, self.tail_samples)),
        }

    def temperature_column(self, temperature: float) -> int:
        """Return the column of ``tail_lse`` for ``temperature``.

        Raises:
            StoreError: the store was not written for that temperature.
        """
        if temperature not in self.temperatures:
            known = ", ".join(f"{value:g}" for value in self.temperatures)
            raise StoreError(
                f"temperature must be one of the soft-target store's ({known}), got {temperature:g} "
                "(params.yaml: train_student.distillation.temperature): choose one of them, "
                "or add it to export_soft_targets.temperatures"
            )
        return self.temperatures.index(temperature)


def item_dtype(n_items: int) -> np.dtype[Any]:
    """Return the smallest unsigned integer type that holds every index 0..n_items.

    >>> [item_dtype(n).name for n in (255, 256, 65_535, 65_536)]
    ['uint8', 'uint16', 'uint16', 'uint32']
    """
    return np.min_scalar_type(n_items)


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``, counted from 0."""
    return f"shard-{number:05d}.safetensors"


def read_header(path: Path) -> StoreHeader:
    """Return the header of the store in the directory ``path``.

    Raises:
        StoreError: there is none, it is damaged, or it is of another version.
    """
    file = path / HEADER
    try:
        document = read_json(file)
    except FileNotFoundError:
        raise StoreError(f"a soft-target store must hold {HEADER}, found none in {path}: export the targets") from None
    except (ValueError, OSError) as error:
        raise StoreError(one_line(f"{HEADER} must be JSON: {error} ({file}): export the soft targets again")) from None
    found = (document.get("format"), document.get("version")) if isinstance(document, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise StoreError(
            f"a soft-target store must be of format {FORMAT!r} version {VERSION}, "
            f"got {found[0]!r} version {found[1]!r} ({file}): export the soft targets again with this Stillhouse"
        )
    try:
        return StoreHeader.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{HEADER} must be whole: {place}: {first['msg']} ({file}): export the soft targets again"
        raise StoreError(one_line(text)) from None
