"""Ranks: full, with every doubt against the model."""

from __future__ import annotations

import numpy as np
import pytest

from stillhouse.evaluate import ranking
from stillhouse.evaluate.ranking import rank_targets, seen_from_rows, top_k

NAN, LOW = np.nan, -np.inf


@pytest.mark.parametrize(
    ("scores", "target", "rank", "why"),
    [
        ([9, 4, 3, 2, 1], 1, 1, "the highest item is first; the padding's score does not count"),
        ([0, 4, 3, 2, 1], 4, 4, "the lowest is last"),
        ([0, 1, 1, 1, 0], 2, 3, "all ties stand before the target"),
        ([0, NAN, 1, NAN, 0], 2, 3, "NaN stands before the target"),
        ([0, NAN, 1, 2, 3], 1, 5, "a target scored NaN is a miss"),
        ([0, LOW, 1, 2, 3], 1, 5, "a target scored -inf is a miss"),
        ([0, LOW, LOW, 2, 3], 3, 2, "what cannot be scored never stands before"),
        ([0, np.inf, np.inf, 0, 0], 1, 2, "infinite ties are ties"),
        ([0, 4, 3, 2, 1], 0, 5, "an unknown target is a miss"),
    ],
)
def test_the_rank_of_one_target(scores: list[float], target: int, rank: int, why: str) -> None:
    found = rank_targets(np.array([scores], dtype=np.float32), np.array([target]))
    assert found.tolist() == [rank], why
    assert found.dtype == np.int64


def test_seen_items_do_not_stand_before_the_target() -> None:
    scores = np.array([[0, 4, 3, 2, 1.0], [0, 4, 3, 2, 1.0]])
    rows = [np.array([1, 2, 2, 1]), np.array([], dtype=np.int64)]
    assert rank_targets(scores, np.array([4, 4]), rows).tolist() == [2, 4]
    assert rank_targets(scores, np.array([4, 4]), seen_from_rows(rows)).tolist() == [2, 4]


def test_a_target_that_is_filtered_is_a_miss() -> None:
    assert rank_targets(np.array([[0, 4, 3.0]]), np.array([1]), [np.array([1])]).tolist() == [3]


def test_the_scores_are_left_as_they_were() -> None:
    scores = np.array([[1.0, NAN, 2.0]])
    before = scores.copy()
    rank_targets(scores, np.array([2]), [np.array([1])])
    top_k(scores, 2, [np.array([1])])
    np.testing.assert_array_equal(scores, before)


def test_no_rows_give_no_ranks() -> None:
    assert rank_targets(np.zeros((0, 4)), np.zeros(0, np.int64)).shape == (0,)
    assert top_k(np.zeros((0, 4)), 2).shape == (0, 2)


def test_the_best_items_come_first_and_equal_ones_in_order_of_index() -> None:
    scores = np.array([[9, 1, 3, 3, 2.0], [9, 5, 5, 5, 5.0]])
    assert top_k(scores, 3).tolist() == [[2, 3, 4], [1, 2, 3]]


def test_lists_hold_no_seen_item_and_nothing_unscored() -> None:
    scores = np.array([[9, 1, NAN, 3, LOW]])
    assert top_k(scores, 4, [np.array([3])]).tolist() == [[1, 0, 0, 0]]


def test_k_above_the_number_of_items_gives_all_of_them() -> None:
    assert top_k(np.array([[9, 1, 2.0]]), 50).tolist() == [[2, 1]]


def test_a_catalogue_without_items_gives_empty_lists() -> None:
    assert top_k(np.array([[9.0]]), 5).shape == (1, 0)


def many_scores() -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Rows with ties, NaN and what cannot be scored, and seen cells in no order."""
    generator = np.random.default_rng(3)
    scores = generator.integers(0, 60, (40, 301)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.05] = NAN
    scores[generator.random(scores.shape) < 0.05] = LOW
    scores[7], scores[8] = LOW, 1.0
    seen = generator.integers(0, 40, 500), generator.integers(0, 301, 500)
    return scores, generator.integers(0, 301, 40), seen


@pytest.mark.parametrize("room", [1, 5000, 1 << 20])
def test_how_many_rows_are_looked_at_together_decides_nothing(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets, seen = many_scores()
    alone = [[items for row, items in zip(*seen, strict=True) if row == number] for number in range(40)]
    rows = [np.array(items, dtype=np.int64) for items in alone]
    expected = [rank_targets(scores[i : i + 1], targets[i : i + 1], rows[i : i + 1])[0] for i in range(40)]
    lists = [top_k(scores[i : i + 1], 10, rows[i : i + 1])[0].tolist() for i in range(40)]
    monkeypatch.setattr(ranking, "_ROOM", room)
    assert rank_targets(scores, targets, seen).tolist() == expected
    assert rank_targets(scores, targets, seen, threads=3).tolist() == expected
    assert top_k(scores, 10, seen).tolist() == lists
    assert top_k(scores, 10, seen, threads=3).tolist() == lists


@pytest.mark.parametrize("items", [7, 8, 2039, 2040, 2041, 6200])
def test_a_rank_may_be_as_large_as_the_catalogue(items: int) -> None:
    """Ranks are counted in words of eight and sums of 255: whatever the columns, none runs over."""
    scores = np.tile(np.arange(items + 1, dtype=np.float32), (3, 1))
    targets = np.array([1, items // 2, items])
    assert rank_targets(scores, targets).tolist() == [items, items - items // 2 + 1, 1]
    assert rank_targets(scores, targets, [np.array([items])] * 3).tolist() == [
        items - 1,
        items - items // 2,
        items + 1,
    ]
    assert rank_targets(-scores, targets).tolist() == [1, items // 2, items]


@pytest.mark.parametrize("item", [-1, 4])
def test_a_seen_item_that_is_none_of_the_columns_is_refused(item: int) -> None:
    seen = [np.array([item]), np.array([], dtype=np.int64)]
    with pytest.raises(IndexError, match=r"seen items must be 0\.\.3"):
        rank_targets(np.zeros((2, 4)), np.array([1, 1]), seen)


@pytest.mark.parametrize("k", [1, 10, 70, 300])
def test_short_lists_are_the_beginning_of_a_full_sort(k: int) -> None:
    scores, _, (row, item) = many_scores()
    masked = np.where(np.isnan(scores), LOW, scores)
    masked[:, 0] = LOW
    masked[row, item] = LOW
    order = np.argsort(-masked, axis=1, kind="stable")
    order[np.take_along_axis(masked, order, axis=1) == LOW] = 0
    assert top_k(scores, k, (row, item)).tolist() == order[:, :k].tolist()
