"""The ranks of early stopping are those of evaluation."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stillhouse.evaluate.metrics import ndcg
from stillhouse.evaluate.ranking import rank_targets
from stillhouse.train.ranking import ndcg_at, ranks

_SCORES = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, math.inf, math.nan])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_ranks_agree_with_the_reference_on_ties_nan_and_seen_items(data: st.DataObject) -> None:
    rows, n_items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    scores = data.draw(arrays.arrays(np.float32, (rows, n_items + 1), elements=_SCORES))
    targets = data.draw(arrays.arrays(np.int64, rows, elements=st.integers(0, n_items)))
    cells = data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, n_items)), max_size=8))
    seen = tuple(np.array([cell[side] for cell in cells], np.int64) for side in (0, 1))
    filtered = data.draw(st.booleans())
    expected = rank_targets(scores, targets, (seen[0], seen[1]) if filtered else None)
    pairs = (torch.from_numpy(seen[0]), torch.from_numpy(seen[1])) if filtered else None
    assert ranks(torch.from_numpy(scores), torch.from_numpy(targets), pairs).tolist() == expected.tolist()


def test_ndcg_agrees_with_the_reference() -> None:
    places = np.array([1, 2, 3, 10, 11, 101])
    assert ndcg_at(10, torch.from_numpy(places), 100) == float(ndcg(places, 10, 100).mean())


def test_ndcg_of_a_hand_worked_table() -> None:
    assert ndcg_at(10, torch.tensor([1, 3, 7, 11]), 20) == (1.0 + 0.5 + 1.0 / 3.0) / 4


def test_a_miss_counts_nothing_where_the_catalogue_is_shorter_than_the_list() -> None:
    scores = torch.full((3, 6), torch.nan)
    assert ndcg_at(10, ranks(scores, torch.tensor([1, 0, 2])), 5) == 0.0
