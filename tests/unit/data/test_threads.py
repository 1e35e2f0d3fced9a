import threading

import pytest

from stillhouse.data.threads import each


def test_results_come_in_the_order_of_the_values_whichever_is_ready_first():
    later = threading.Event()

    def work(value):
        if value == 0:
            later.wait(0.05)  # on one core nothing runs beside it
        else:
            later.set()
        return value * 2

    assert list(each(work, range(5))) == [0, 2, 4, 6, 8]


def test_the_first_error_in_order_is_the_one_that_is_raised():
    def work(value):
        if value:
            raise ValueError(str(value))
        return value

    with pytest.raises(ValueError, match=r"^1$"):
        list(each(work, [0, 1, 2]))
