from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stillhouse.distill.positions import seen_pairs
from stillhouse.distill.seen import SeenBefore

HISTORIES = SimpleNamespace(items=np.array([3, 1, 2, 9, 8, 7, 6], np.int32), offsets=np.array([0, 3, 3, 7]))
USERS, STEPS = np.array([2, 0, 0, 2]), np.array([0, 0, 2, 3])


@pytest.mark.parametrize("on_host", [None, STEPS], ids=["asked", "known"])
def test_what_was_seen_is_what_the_histories_say(on_host):
    seen = SeenBefore(HISTORIES).at(torch.from_numpy(USERS), torch.from_numpy(STEPS), on_host)
    expected = seen_pairs(HISTORIES.items, HISTORIES.offsets, USERS, STEPS)
    for found, part in zip(seen, expected, strict=True):
        assert found.tolist() == part.tolist()


@pytest.mark.parametrize("on_host", [None, STEPS], ids=["asked", "known"])
def test_a_part_is_what_its_positions_have_seen(on_host):
    seen = SeenBefore(HISTORIES).at(torch.from_numpy(USERS), torch.from_numpy(STEPS), on_host)
    rows, items = seen.part(2, 4)
    assert (rows.tolist(), items.tolist()) == ([0, 0, 0, 1, 1, 1, 1], [3, 1, 2, 9, 8, 7, 6])
    assert [part.tolist() for part in seen.part(4, 4)] == [[], []]
    assert [seen.part(*bounds).most for bounds in ((0, 2), (2, 4), (4, 4))] == [1, 4, 0]
