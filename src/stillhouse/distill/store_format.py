"""What a soft-target store looks like on disk (docs/soft-targets.md, version 2).

::

    store.json             the header: whose targets these are, how they are coded, the digest of every file
    index.safetensors      counts, first step and training rows of each user; the strata that draws are made of
    shard-00000.safetensors …   one row a position, users in order, steps in order
    layers/00 …            whole stores of earlier nights, the latest first: for users who are not in the store itself

A shard's rows hold raw teacher scores in few bits (`stillhouse.distill.coding_positions`):
those of the top k unseen items, the log-sum-exp of everything unseen beyond them at
each temperature, and the scores of items drawn from there. Which items were drawn is
written nowhere: `stillhouse.distill.draws` works it out. Beside them may stand the
teacher's state behind the position, which is not coded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from stillhouse.data.files import read_json
from stillhouse.distill.coding_positions import RowCode, row_shapes
from stillhouse.errors import StoreError, one_line

__all__ = [
    "FORMAT",
    "HEADER",
    "HIDDEN",
    "INDEX",
    "ITEMS",
    "VERSION",
    "LayerEntry",
    "ShardEntry",
    "StoreHeader",
    "layer_name",
    "read_header",
    "shard_name",
]

FORMAT = "stillhouse soft targets"
VERSION = 2
HEADER = "store.json"
INDEX = "index.safetensors"
#: The teacher's item table, where it scores by one: what a student may start from.
ITEMS = "items.safetensors"
#: The tensor of a shard that holds the teacher's states, where they are kept.
HIDDEN = "hidden"


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class ShardEntry(_Entry):
    """One shard in the header."""

    file: str = pydantic.Field(pattern=r"^shard-\d{5,}\.safetensors$")
    positions: int = pydantic.Field(ge=0)
    bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    top_k_probability: tuple[float, ...] = pydantic.Field(strict=False)
    """Mean probability of the top k at each temperature, before coding."""


class LayerEntry(_Entry):
    """The store of an earlier night that still answers for some users, in the header of tonight's."""

    folder: str = pydantic.Field(pattern=r"^layers/\d{2,}$")
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    """Of its ``store.json``, which names all the rest."""
    teacher: str
    """SHA-256 of the weights of the teacher that it is of."""
    age: int = pydantic.Field(ge=1)
    """Nights since it was scored."""
    users: int = pydantic.Field(ge=1)
    """Users whom it answers for."""


class StoreHeader(_Entry):
    """Whose soft targets these are, how they were cut, and the digest of every file."""

    format: str
    version: int
    teacher: str
    """SHA-256 of the teacher's ``model.safetensors``."""
    vocabulary: str
    """Digest of the vocabulary whose indices the items are."""
    inputs: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the events and settings that the positions were cut from."""
    n_items: int = pydantic.Field(ge=1)
    n_users: int = pydantic.Field(ge=0)
    """Users of the sequences, copies included."""
    length: int = pydantic.Field(ge=1)
    """Most positions that the teacher read at once."""
    windows: Literal["last", "all"] = "last"
    """Which of a user's positions are here: the last ``length`` of the training rows, or all, read in rows of so many
    that end where the next begins."""
    k: int = pydantic.Field(ge=1)
    score_bits: int = pydantic.Field(ge=1, le=8)
    tail_samples: int = pydantic.Field(ge=0)
    tail_bits: int = pydantic.Field(ge=2, le=7)
    temperatures: tuple[float, ...] = pydantic.Field(min_length=1, strict=False)
    seed: int = pydantic.Field(ge=0)
    """Of the draws, and of what is substituted in copies."""
    repeat_items: bool
    """Whether items that a user has already taken are among the targets."""
    copies: int = pydantic.Field(0, ge=0)
    """Copies of each user's training rows among the users above (`stillhouse.data.substitution`)."""
    substituted: float = pydantic.Field(0.0, ge=0.0, le=1.0)
    """How likely an event of a copy is another item; 0 without copies."""
    hidden_width: int = pydantic.Field(0, ge=0)
    """Numbers of the teacher's state at each position; 0: its states are not kept."""
    positions: int = pydantic.Field(ge=0)
    index_sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    items_sha256: str | None = pydantic.Field(None, pattern=r"^[0-9a-f]{64}$")
    """Of the teacher's item table; ``null``: the teacher has none, or the store is older than this key."""
    shards: tuple[ShardEntry, ...] = pydantic.Field(strict=False)
    layers: tuple[LayerEntry, ...] = pydantic.Field((), strict=False)
    """What earlier teachers said, the latest first; no positions of theirs are counted above."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers whose scores are read here: tonight's, and those of the layers."""
        return tuple(dict.fromkeys([self.teacher, *(layer.teacher for layer in self.layers)]))

    @property
    def code(self) -> RowCode:
        """How the rows are coded."""
        return RowCode(
            n_items=self.n_items,
            k=self.k,
            score_bits=self.score_bits,
            samples=self.tail_samples,
            tail_bits=self.tail_bits,
            temperatures=len(self.temperatures),
        )

    def json_bytes(self) -> bytes:
        """Return ``store.json`` as it stands on disk; equal headers give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False)
        return f"{text}\n".encode()

    def shapes(self, positions: int) -> Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return name → (dtype, shape) of the tensors in a shard of ``positions`` rows."""
        coded = row_shapes(self.code, positions)
        if not self.hidden_width:
            return coded
        return {**coded, HIDDEN: (np.dtype(np.float16), (positions, self.hidden_width))}

    def temperature_column(self, temperature: float) -> int:
        """Return the column of ``tail_lse`` for ``temperature``.

        Raises:
            StoreError: the store was not written for that temperature.
        """
        if temperature not in self.temperatures:
            known = ", ".join(f"{value:g}" for value in self.temperatures)
            raise StoreError(
                f"temperature must be one of the soft-target store's ({known}), got {temperature:g} "
                "(params.yaml: export_soft_targets.temperatures): choose one of the store's, or add it there and run "
                "a night"
            )
        return self.temperatures.index(temperature)


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``, counted from 0."""
    return f"shard-{number:05d}.safetensors"


def layer_name(number: int) -> str:
    """Return the folder of layer ``number`` within a store, counted from 0."""
    return f"layers/{number:02d}"


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
