"""Which targets belong to which slice."""

from __future__ import annotations

import numpy as np

from stillhouse.evaluate.slices import head_items, slice_masks, slice_metrics


def test_the_head_is_the_fewest_items_that_hold_the_share() -> None:
    popularity = np.array([0, 1, 5, 3, 1])
    assert np.flatnonzero(head_items(popularity, 0.5)).tolist() == [2]
    assert np.flatnonzero(head_items(popularity, 0.51)).tolist() == [2, 3]


def test_equally_popular_items_enter_the_head_in_order_of_index() -> None:
    assert np.flatnonzero(head_items(np.array([0, 2, 2, 2, 2]), 0.5)).tolist() == [1, 2]


def test_without_training_rows_there_is_no_head() -> None:
    assert not head_items(np.zeros(4, np.int64), 0.5).any()


def test_slices_say_who_and_what() -> None:
    masks = slice_masks(
        lengths=np.array([2, 3, 9, 0]),
        train_length=np.array([1, 5, 5, 0]),
        items=np.array([2, 1, 0, 1]),
        popularity=np.array([0, 1, 9]),
        short=2,
        head_share=0.5,
    )
    rows = {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
    assert rows == {
        "short": [0, 3],
        "long": [1, 2],
        "new_users": [3],
        "head": [0],
        "tail": [1, 3],
        "unknown": [2],
    }


def test_an_empty_slice_has_no_figures() -> None:
    none = np.zeros(2, dtype=bool)
    found = slice_metrics({"none": none, "all": ~none}, np.array([0, 1]), np.array([1, 9]), (10,), 8)
    assert found["none"]["ndcg_at_10"] is None
    assert found["none"]["users"] == 0
    assert found["all"]["hr_at_10"] == 0.5
