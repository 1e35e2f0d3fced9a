"""A position's numbers in few bits: the top k, what is beyond it, and back (docs/soft-targets.md).

Scores become whole steps of a size of their own position's: the top's between its best
and its worst, the draws' from there down to the lowest one drawn. Nothing else is lost
but float16's rounding of the sizes, the peak and the tail's log-sum-exps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.distill.coding import field_bytes, pack_fields, pack_sets, set_bytes, unpack_fields, unpack_sets

__all__ = ["OpenRows", "RowCode", "decode", "encode", "open_bytes", "row_shapes"]

Tensors = Mapping[str, NDArray[Any]]

_LOWEST, _HIGHEST = float(np.finfo(np.float16).min), float(np.finfo(np.float16).max)
#: The bit of an open draw's byte that says: counts nothing. Its steps take 7 bits at most.
_IDLE = np.uint8(0x80)


@dataclass(frozen=True)
class RowCode:
    """How the rows of a store are coded."""

    n_items: int
    k: int
    score_bits: int
    """1..8: bits of a score of the top."""
    samples: int
    """Draws a position."""
    tail_bits: int
    """2..7: bits of a draw's score."""
    temperatures: int

    @property
    def levels(self) -> int:
        """Steps from the best score of the top to its worst."""
        return int(2**self.score_bits - 1)

    @property
    def outside(self) -> int:
        """The code of a draw that fell outside the tail; those below it are steps."""
        return int(2**self.tail_bits - 1)

    @property
    def item(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds an item index."""
        return np.min_scalar_type(self.n_items)


@dataclass(frozen=True)
class OpenRows:
    """N rows decoded as far as whole numbers go: what is kept in memory, and cheap to make floats of."""

    items: NDArray[np.unsignedinteger]
    """[N, k]: the top, best first, equal ones by index; 0 pads."""
    steps: NDArray[np.uint8]
    """[N, k]: how many steps each stands below the best."""
    scale: NDArray[np.float16]
    """[N]: the size of a step."""
    peak: NDArray[np.float16]
    """[N]: the best score."""
    tail_lse: NDArray[np.float16]
    """[N, temperatures], relative to the peak; -inf where there is no tail."""
    tail_items: NDArray[np.unsignedinteger]
    """[N, S]: drawn items; 0 where there is no tail. An idle one repeats another of its row, or the top's worst."""
    tail_steps: NDArray[np.uint8]
    """[N, S]: steps below the worst of the top; the highest bit marks an idle draw."""
    tail_scale: NDArray[np.float16]
    """[N]: the size of such a step."""

    def __len__(self) -> int:
        return len(self.scale)

    @classmethod
    def joined(cls, parts: Iterable[OpenRows], rows: int, code: RowCode) -> OpenRows:
        """Return the ``rows`` rows of ``parts``, one after another."""
        whole = cls(**{name: np.empty((rows, *tail), kind) for name, (kind, tail) in _open_shapes(code).items()})
        start = 0
        for part in parts:
            for name, array in vars(part).items():
                getattr(whole, name)[start : start + len(part)] = array
            start += len(part)
        return whole

    def take(self, rows: NDArray[np.int64]) -> OpenRows:
        """Return these rows."""
        return OpenRows(**{name: np.take(array, rows, axis=0) for name, array in vars(self).items()})

    def without_draws(self) -> OpenRows:
        """Return the rows as they are, but S = 0."""
        return replace(self, tail_items=self.tail_items[:, :0], tail_steps=self.tail_steps[:, :0])

    def scores(self) -> NDArray[np.float32]:
        """Return float32 [N, k]: the top's scores less the peak; -inf pads."""
        below = self.steps * -self.scale.astype(np.float32)[:, None]
        return np.where(self.items == 0, np.float32(-np.inf), below)

    def tail_scores(self, code: RowCode) -> NDArray[np.float32]:
        """Return float32 [N, S]: the draws' scores less the peak; -inf where there is no tail."""
        below = (self.tail_steps & ~_IDLE) * -self.tail_scale.astype(np.float32)[:, None]
        below -= self.scale.astype(np.float32)[:, None] * np.float32(code.levels)
        return np.where(self.tail_items == 0, np.float32(-np.inf), below)

    def tail_logq(self, logq: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 [N, S]: ``logq`` [S] of each draw; +inf for an idle one, 0 where there is no tail."""
        found = np.where(self.tail_steps & _IDLE, np.float32(np.inf), logq[: self.tail_steps.shape[1]])
        return np.where(self.tail_items == 0, np.float32(0.0), found)


def row_shapes(code: RowCode, rows: int) -> Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return name → (dtype, shape) of the tensors of ``rows`` coded rows."""
    byte, half = np.dtype(np.uint8), np.dtype(np.float16)
    return {
        "items": (byte, (rows, set_bytes(code.k, code.n_items))),
        "scores": (byte, (rows, field_bytes(code.k, code.score_bits))),
        "scale": (half, (rows,)),
        "peak": (half, (rows,)),
        "tail_lse": (half, (rows, code.temperatures)),
        "tail_scores": (byte, (rows, field_bytes(code.samples, code.tail_bits))),
        "tail_scale": (half, (rows,)),
    }


def open_bytes(code: RowCode) -> int:
    """Return the bytes in memory of one decoded row."""
    return sum(int(np.prod(shape, dtype=np.int64)) * kind.itemsize for kind, shape in _open_shapes(code).values())


def _open_shapes(code: RowCode) -> Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Field → (dtype, shape) of one row of `OpenRows`."""
    byte, half = np.dtype(np.uint8), np.dtype(np.float16)
    return {
        "items": (code.item, (code.k,)),
        "steps": (byte, (code.k,)),
        "scale": (half, ()),
        "peak": (half, ()),
        "tail_lse": (half, (code.temperatures,)),
        "tail_items": (code.item, (code.samples,)),
        "tail_steps": (byte, (code.samples,)),
        "tail_scale": (half, ()),
    }


def encode(kept: Tensors, code: RowCode) -> dict[str, NDArray[Any]]:
    """Return the tensors of `row_shapes` for what `stillhouse.distill.extract` gave.

    Args:
        kept: ``items`` [N, k] ascending, ``scores`` and ``tail_scores`` less the ``peak``, ``peak``, ``tail_lse``.
        code: how to write it.
    """
    best, drawn = kept["scores"], kept["tail_scores"]
    scale = _size(-_lowest(best), code.levels)
    worst = -scale.astype(np.float32) * np.float32(code.levels)
    tail_scale = _size(worst - _lowest(np.minimum(drawn, worst[:, None])), code.outside - 1)
    steps = _steps(-best, scale, code.levels)
    tail_steps = _steps(worst[:, None] - drawn, tail_scale, code.outside - 1)
    tail_steps[np.isneginf(drawn)] = code.outside
    return {
        "items": pack_sets(kept["items"], code.n_items),
        "scores": pack_fields(steps, code.score_bits),
        "scale": scale,
        "peak": _half(kept["peak"]),
        "tail_lse": _half(kept["tail_lse"]),
        "tail_scores": pack_fields(tail_steps, code.tail_bits),
        "tail_scale": tail_scale,
    }


def decode(tensors: Tensors, drawn: NDArray[np.unsignedinteger], code: RowCode) -> OpenRows:
    """Return the rows that were coded as ``tensors``.

    Args:
        tensors: those of `row_shapes`.
        drawn: [N, S], the items that the rows' draws are of.
        code: how it was written.

    Raises:
        ValueError: the bytes are no code of such rows.
    """
    items = unpack_sets(tensors["items"], code.k, code.n_items)
    if items.size and items.max() > code.n_items:
        raise ValueError(f"items must be within 0..{code.n_items}, found {items.max()}")
    items, steps = _best_first(items, unpack_fields(tensors["scores"], code.k, code.score_bits))
    tail_items, tail_steps = _filled(
        drawn, unpack_fields(tensors["tail_scores"], code.samples, code.tail_bits), items, tensors["tail_lse"], code
    )
    return OpenRows(
        items=items,
        steps=steps,
        tail_items=tail_items,
        tail_steps=tail_steps,
        **{name: np.asarray(tensors[name]) for name in ("scale", "peak", "tail_lse", "tail_scale")},
    )


def _best_first(items: NDArray[Any], steps: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Rows sorted by steps, then by item; padding last."""
    wide: type[np.unsignedinteger[Any]] = np.uint32 if items.dtype.itemsize < 4 else np.uint64
    shift = wide(8 * items.dtype.itemsize)
    padding = items == 0
    keys: NDArray[Any] = np.left_shift(steps.astype(wide), shift) | items
    # No step is that large: 8 bits of them end at 255, and only a row's worst items have it.
    keys[padding] = wide(0x100) << shift
    keys.sort(axis=1)
    return keys.astype(items.dtype), np.where(keys >> shift > 0xFF, 0, keys >> shift).astype(np.uint8)


def _filled(
    drawn: NDArray[Any], codes: NDArray[Any], items: NDArray[Any], tail_lse: NDArray[Any], code: RowCode
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Draws [N, S] and their steps: where one fell outside the tail, another of its row, marked idle.

    So whatever reads the draws without their probabilities still finds items of the tail.
    """
    if not code.samples:
        return drawn, codes
    valid = codes != code.outside
    if not valid.all():
        places = np.where(valid, np.arange(code.samples, dtype=np.int32), np.int32(-1))
        np.maximum.accumulate(places, axis=1, out=places)
        # Before a row's first valid draw stands its last one; -1 still: there is none at all.
        places = np.where(places < 0, places[:, -1:], places)
        source = np.maximum(places, 0).astype(np.intp)
        none = places < 0
        worst = items[:, -1:]
        drawn = np.where(none, worst, np.take_along_axis(drawn, source, axis=1))
        codes = np.where(none, 0, np.take_along_axis(codes, source, axis=1)).astype(np.uint8)
        codes[~valid] |= _IDLE
    tailless = np.isneginf(tail_lse[:, 0])
    if tailless.any():
        drawn = np.where(tailless[:, None], 0, drawn)
    return drawn.astype(code.item, copy=False), codes


def _lowest(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lowest finite score of each row, at most 0; 0 where there is none."""
    lowest: NDArray[np.float32] = np.where(np.isneginf(scores), np.float32(0.0), scores).min(axis=1, initial=0.0)
    return lowest


def _size(span: NDArray[np.float32], steps: int) -> NDArray[np.float16]:
    """The size of one of ``steps`` steps that cover ``span``."""
    size: NDArray[np.float16] = np.clip(span / np.float32(steps), 0.0, _HIGHEST).astype(np.float16)
    return size


def _steps(below: NDArray[np.float32], size: NDArray[np.float16], most: int) -> NDArray[np.uint8]:
    """The whole steps nearest to ``below``, 0..``most``; +inf gives the last."""
    wide = size.astype(np.float32)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.rint(below / np.where(wide == 0, np.float32(np.inf), wide))
    steps: NDArray[np.uint8] = np.clip(np.nan_to_num(found, posinf=most), 0, most).astype(np.uint8)
    return steps


def _half(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """As float16, where what is finite stays finite."""
    clipped = np.clip(numbers, _LOWEST, _HIGHEST)
    half: NDArray[np.float16] = np.where(np.isneginf(numbers), numbers, clipped).astype(np.float16)
    return half
