"""Which items a position draws is written nowhere in a store: the hash is part of the format (docs/soft-targets.md).

The same in whole numbers of Python, from the published constants of SplitMix64 and lowbias32, and what it came to once.
Where this fails, stores that stand would be read as other items: the format needs another version.
"""

import numpy as np
import pytest

from stillhouse.distill.draws import strata_of, tail_draws

POPULAR = np.array([500, 3, 0, 40, 40, 7, 0, 1, 90, 12] * 7)
GAMMA = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    state = (state + GAMMA) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def lowbias(number: int) -> int:
    number = (number ^ number >> 16) * 0x7FEB352D % 2**32
    number = (number ^ number >> 15) * 0x846CA68B % 2**32
    return number ^ number >> 16


def by_hand(seed: int, user: int, step: int, strata) -> list[int]:
    state = splitmix(splitmix(splitmix(seed) ^ user * GAMMA % 2**64) ^ step * GAMMA % 2**64)
    drawn, begin = [], 0
    for number, end in enumerate(strata.ends.tolist(), start=1):
        place = lowbias((state // 2**32 + number * 0x9E3779B9) % 2**32) * (end - begin) // 2**32
        drawn.append(int(strata.items[begin + place]))
        begin = end
    return drawn


@pytest.mark.parametrize(
    ("position", "strata", "drawn"),
    [
        ((20260101, 0, 0), strata_of(POPULAR, 9), [21, 61, 39, 15, 55, 10, 36, 28, 33]),
        ((20260101, 1, 199), strata_of(POPULAR, 9), [21, 61, 9, 24, 35, 60, 6, 58, 7]),
        ((20260101, 4_000_000_000, 7), strata_of(POPULAR, 9), [11, 51, 9, 14, 35, 10, 22, 32, 47]),
        ((1, 3, 2), strata_of(np.arange(100_000), 5), [95162, 79927, 51409, 37214, 9883]),
    ],
)
def test_a_position_draws_what_it_always_drew(position, strata, drawn):
    seed, user, step = position
    assert tail_draws(seed, np.array([user]), np.array([step]), strata).tolist() == [drawn]
    assert by_hand(seed, user, step, strata) == drawn


def test_strata_are_cut_where_they_always_were():
    assert strata_of(POPULAR, 9).ends.tolist() == [4, 7, 12, 19, 26, 35, 45, 57, 70]
    assert strata_of(np.arange(100_000), 5).ends.tolist() == [16417, 33829, 52617, 73581, 100000]
