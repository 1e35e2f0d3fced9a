import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from stillhouse.data.order import is_rising, stable_order


@given(stn.arrays(np.int64, st.integers(0, 40), elements=st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)))
def test_the_order_is_that_of_numpys_stable_sort_whatever_the_span(keys):
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@pytest.mark.parametrize("span", [2**61 - 1, 2**61, 2**62])
def test_the_order_is_right_on_both_sides_of_the_largest_span_that_fits_beside_a_place(span):
    keys = np.array([span, 0, span, 0], np.int64)
    assert stable_order(keys).tolist() == [1, 3, 0, 2]


def test_keys_are_left_as_they_are():
    keys = np.array([3, 1, 2], np.int64)
    stable_order(keys)
    assert keys.tolist() == [3, 1, 2]


def test_equal_values_rise_and_a_single_fall_does_not():
    assert is_rising(np.array([1, 1, 2]))
    assert not is_rising(np.array([1, 3, 2]))
    assert is_rising(np.array([], np.int64))
