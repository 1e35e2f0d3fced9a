"""Many records are asked for at once, and come in the order of their versions."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillhouse.errors import RegistryError
from tasks import records

KNOWN = [SimpleNamespace(version=number) for number in range(100)]


def test_several_are_asked_for_at_once_and_come_in_order():
    together = threading.Barrier(records._AT_ONCE, timeout=30)

    def read(_root, info):
        if info.version < records._AT_ONCE:
            together.wait()  # broken unless as many are at it
            time.sleep(0.01 * (records._AT_ONCE - info.version))
        return b"%d" % info.version

    found = list(records.records(Path(), KNOWN, read))
    assert found == [b"%d" % info.version for info in KNOWN]


def test_after_one_that_is_gone_no_more_are_asked_for():
    asked = []

    def read(_root, info):
        asked.append(info.version)
        if info.version == 3:
            raise RegistryError("the files of version 3 must be there")
        time.sleep(0.01)
        return b""

    with pytest.raises(RegistryError, match="version 3"):
        list(records.records(Path(), KNOWN, read))
    assert len(asked) < 50
