"""A transfer that failed is tried again; one that fails each time says why."""

import pytest
from dvc.exceptions import DvcException

from tasks import handover


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(handover, "_WAITS", (0.0, 0.0))


@pytest.mark.parametrize("error", [DvcException("57 files failed"), OSError("connection reset")])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_networks_hiccup_does_not_end_a_night(error, failures):
    tries = []

    def transfer():
        tries.append(1)
        if len(tries) <= failures:
            raise error

    handover._again(transfer)
    assert len(tries) == failures + 1


def test_what_fails_each_time_is_raised():
    tries = []

    def transfer():
        tries.append(1)
        raise OSError("no route to host")

    with pytest.raises(OSError, match="no route"):
        handover._again(transfer)
    assert len(tries) == 3


def test_another_error_is_not_tried_again():
    tries = []

    def transfer():
        tries.append(1)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        handover._again(transfer)
    assert len(tries) == 1
