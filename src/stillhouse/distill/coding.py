"""Whole numbers in few bits, many rows at once: fields of a fixed width, and sorted sets.

Two codes, both of a fixed number of bytes a row, so that a row is found by its number
and a thousand are read without a loop over them:

- *fields*: numbers below ``2**bits``. The bits of a number are cut into planes of 8,
  4, 2 and 1 bits, the widest first and lowest (13 = 8 + 4 + 1). In a plane of w bits
  a byte holds 8 / w numbers one after another, the first in its lowest bits: no number
  straddles two bytes, and a byte is read by one look into a table.
- *sorted sets*: ascending numbers ``0..top``, equal ones allowed. Their low bits are
  fields; what is above them is written in unary, number i setting bit ``high_i + i``
  (the first bit of a byte is its lowest).
  Source: P. Elias, "Efficient Storage and Retrieval by Content and Address of Static
  Files", J. ACM 1974; R. M. Fano, 1971. About two bits a number above the information
  in a set, and at most half a bit above it at the best split.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["field_bytes", "pack_fields", "pack_sets", "set_bytes", "unpack_fields", "unpack_sets"]

Bytes = NDArray[np.uint8]
Unsigned = NDArray[np.unsignedinteger]


def field_bytes(count: int, bits: int) -> int:
    """Return how many bytes ``count`` fields of ``bits`` bits take.

    >>> [field_bytes(50, bits) for bits in (4, 5, 6, 12)]
    [25, 32, 38, 75]
    """
    return sum(_stride(count, width) for width, _ in _planes(bits))


def pack_fields(values: NDArray[np.integer], bits: int) -> Bytes:
    """Return ``values`` as fields.

    Args:
        values: integers [N, C] in 0..2**bits - 1.
        bits: 0..32.

    Returns:
        uint8 [N, field_bytes(C, bits)].

    >>> pack_fields(np.array([[1, 2, 3]]), 4).tolist()
    [[33, 3]]
    """
    rows, count = values.shape
    parts = [np.empty((rows, 0), np.uint8)]
    for width, shift in _planes(bits):
        plane = np.zeros((rows, _stride(count, width) * (8 // width)), np.uint8)
        part = values if shift == 0 else values >> shift
        np.bitwise_and(part, 2**width - 1, out=plane[:, :count], casting="unsafe")
        packed = plane[:, :: 8 // width].copy()
        for slot in range(1, 8 // width):
            packed |= plane[:, slot :: 8 // width] << np.uint8(slot * width)
        parts.append(packed)
    return np.concatenate(parts, axis=1)


def unpack_fields(packed: Bytes, count: int, bits: int) -> Unsigned:
    """Return what `pack_fields` was given: [N, count] of the smallest unsigned type that holds ``bits`` bits.

    >>> unpack_fields(pack_fields(np.array([[5, 1000, 4095]]), 12), 3, 12).tolist()
    [[5, 1000, 4095]]
    """
    kind = np.min_scalar_type(2**bits - 1)
    values: Unsigned = np.zeros((len(packed), count), kind)
    start = 0
    for width, shift in _planes(bits):
        stop = start + _stride(count, width)
        plane = np.take(_opened(width), packed[:, start:stop]).view(np.uint8)[:, :count]
        values |= plane.astype(kind, copy=False) << kind.type(shift)
        start = stop
    return values


def set_bytes(count: int, top: int) -> int:
    """Return how many bytes a sorted set of ``count`` numbers 0..``top`` takes.

    >>> set_bytes(50, 3416), field_bytes(50, 12)
    (51, 75)
    """
    return _set_sizes(count, top)[1]


def pack_sets(values: NDArray[np.integer], top: int) -> Bytes:
    """Return the rows of ``values`` as sorted sets.

    Args:
        values: integers [N, C], each row ascending within 0..``top``.
        top: the largest number there may be.

    Returns:
        uint8 [N, set_bytes(C, top)].

    >>> unpack_sets(pack_sets(np.array([[0, 0, 7, 300]]), 300), 4, 300).tolist()
    [[0, 0, 7, 300]]
    """
    rows, count = values.shape
    low, size = _set_sizes(count, top)
    fields = pack_fields(values.astype(np.min_scalar_type(top)), low)
    above = size - fields.shape[1]
    places = (values >> low) + np.arange(count)
    places += _row_starts(rows, above)
    bits = np.zeros(rows * above * 8, np.uint8)
    bits[places.reshape(-1)] = 1
    return np.concatenate([fields, np.packbits(bits, bitorder="little").reshape(rows, above)], axis=1)


def unpack_sets(packed: Bytes, count: int, top: int) -> Unsigned:
    """Return what `pack_sets` was given: [N, count] of the smallest unsigned type that holds ``top``.

    Raises:
        ValueError: a row is no set of ``count`` numbers, so the bytes are not what was written.
    """
    low, size = _set_sizes(count, top)
    split = field_bytes(count, low)
    kind = np.min_scalar_type(top)
    bits = np.unpackbits(np.ascontiguousarray(packed[:, split:]), bitorder="little")
    ones = np.flatnonzero(bits.view(np.bool_))
    if len(ones) != len(packed) * count:
        raise ValueError(f"{len(packed)} sets of {count} numbers must have that many bits set, found {len(ones)}")
    # Places within a row, in the smallest type that holds them: what wraps around comes back.
    narrow = np.min_scalar_type(8 * (size - split))
    high = ones.astype(narrow).reshape(len(packed), count)
    high -= _row_starts(len(packed), size - split).astype(narrow)
    high -= np.arange(count, dtype=narrow)
    if len(ones) and high.max() > top >> low:
        raise ValueError(f"sets must be of numbers 0..{top}, found others")
    values: Unsigned = high.astype(kind) << kind.type(low)
    values |= unpack_fields(packed[:, :split], count, low).astype(kind)
    return values


def _planes(bits: int) -> list[tuple[int, int]]:
    """Width and shift of each plane, widest first.

    >>> _planes(13)
    [(8, 0), (4, 8), (1, 12)]
    """
    planes, done = [], 0
    while done < bits:
        width = min(8, 1 << ((bits - done).bit_length() - 1))
        planes.append((width, done))
        done += width
    return planes


@cache
def _opened(width: int) -> NDArray[np.unsignedinteger]:
    """For each byte the 8 / width numbers in it, a byte each, as one integer in memory order, [256].

    >>> _opened(4)[0x31:0x32].view(np.uint8).tolist()
    [1, 3]
    """
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    table = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8(2**width - 1)
    return np.ascontiguousarray(table).view(f"u{8 // width}").ravel()


def _stride(count: int, width: int) -> int:
    return -(-count * width // 8)


def _set_sizes(count: int, top: int) -> tuple[int, int]:
    """How many low bits are fields, and the bytes of a set: the smallest; of equal ones the least in unary."""
    sizes = [(field_bytes(count, low) + -(-(count + (top >> low)) // 8), -low) for low in range(top.bit_length() + 1)]
    size, low = min(sizes)
    return -low, size


def _row_starts(rows: int, size: int) -> NDArray[np.int64]:
    """The first bit of each row of ``size`` bytes, [rows, 1]."""
    return np.arange(rows, dtype=np.int64)[:, None] * (8 * size)
