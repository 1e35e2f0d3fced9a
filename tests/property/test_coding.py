"""Whatever is packed into few bits comes out of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.distill.coding import field_bytes, pack_fields, pack_sets, set_bytes, unpack_fields, unpack_sets


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(0, 5),
    count=st.integers(0, 70),
    bits=st.integers(0, 32),
    seed=st.integers(0, 2**32),
    edge=st.booleans(),
)
def test_fields_come_back_in_no_more_bytes_than_their_planes_need(rows, count, bits, seed, edge):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, (rows, count), dtype=np.int64)
    if edge:
        values = np.where(rng.random(values.shape) < 0.5, 2**bits - 1, values)
    packed = pack_fields(values, bits)
    assert packed.shape == (rows, field_bytes(count, bits))
    # Each of at most four plane widths wastes less than a byte.
    assert field_bytes(count, bits) < count * bits / 8 + max(1, bits.bit_count() if bits < 8 else 3)
    found = unpack_fields(packed, count, bits)
    assert np.array_equal(found, values)
    assert found.dtype == np.min_scalar_type(2**bits - 1)


@settings(max_examples=120, deadline=None)
@given(
    rows=st.integers(0, 5),
    count=st.integers(1, 60),
    top=st.one_of(st.integers(1, 300), st.sampled_from([3416, 65_535, 65_536, 10_000_000])),
    seed=st.integers(0, 2**32),
    shape=st.sampled_from(["anywhere", "all equal", "at the ends"]),
)
def test_sorted_sets_come_back_in_no_more_bytes_than_their_numbers_packed(rows, count, top, seed, shape):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, top + 1, (rows, count))
    if shape == "all equal":
        values[:] = values[:, :1]
    elif shape == "at the ends":
        values = np.where(values > top // 2, top, 0)
    values.sort(axis=1)
    packed = pack_sets(values, top)
    assert packed.shape == (rows, set_bytes(count, top))
    assert set_bytes(count, top) <= field_bytes(count, top.bit_length()) + -(-count // 8)
    found = unpack_sets(packed, count, top)
    assert np.array_equal(found, values)
    assert found.dtype == np.min_scalar_type(top)
