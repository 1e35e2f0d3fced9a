from __future__ import annotations

import math

import numpy as np
import pytest

from stillhouse.distill.coding import field_bytes, pack_fields, pack_sets, set_bytes, unpack_sets


def test_fields_lie_in_planes_of_eight_four_two_and_one_bits():
    # 13 bits: the low 8 as bytes, the next 4 two to a byte (lowest first), the highest eight to a byte.
    packed = pack_fields(np.array([[0x1A5C, 0x0B6D, 0x1C7E]]), 13)
    assert packed.tolist() == [[0x5C, 0x6D, 0x7E, 0xBA, 0x0C, 0b101]]


def test_a_set_is_its_low_bits_and_then_what_is_above_them_in_unary():
    # Of 4 numbers up to 60: the low 4 bits of each, then the bits 0 + 0, 0 + 1, 2 + 2 and 3 + 3.
    packed = pack_sets(np.array([[0x05, 0x07, 0x2A, 0x3C]]), 60)
    assert packed.tolist() == [[0x75, 0xCA, 0b1010011]]


@pytest.mark.parametrize(("k", "top"), [(50, 869), (50, 3416), (128, 3416), (50, 1_000_000)])
def test_a_set_takes_little_more_than_the_information_in_it(k, top):
    information = (math.lgamma(top + 1) - math.lgamma(k + 1) - math.lgamma(top - k + 1)) / math.log(2) / 8
    assert information < set_bytes(k, top) < 1.12 * information < field_bytes(k, top.bit_length())


def test_bytes_that_are_no_set_are_refused():
    packed = pack_sets(np.array([[3, 70, 200]]), 255)
    for bit in (1, 2, 4):
        damaged = packed.copy()
        damaged[0, -1] ^= bit
        with pytest.raises(ValueError, match="must have that many bits set, found"):
            unpack_sets(damaged, 3, 255)
    moved = packed.copy()
    moved[0, -1] = 0b11100000
    with pytest.raises(ValueError, match=r"must be of numbers 0\.\.255"):
        unpack_sets(moved, 3, 255)
