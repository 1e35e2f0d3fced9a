"""Five users and six items, worked by hand on paper: scores, ranks, lists and every metric.

=====  ========  =======  =============================  ====  ===================
user   history   target   scores of items 1..6           rank  why
=====  ========  =======  =============================  ====  ===================
0      1         2        9  8  7  6  5  4               1     item 1 is seen
1      2, 3      6        1  9  9  2  3  2               3     5 is above, 4 ties
2      4         5        1  2  3  9  0  4               5     last of five
3      5         6        n  1  n  0  0  2               3     NaN is above
4      6         (0)      1  2  3  4  5  6               7     unknown: a miss
=====  ========  =======  =============================  ====  ===================
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from stillhouse.evaluate.metrics import coverage, popularity_bias, ranking_metrics
from stillhouse.evaluate.ranking import rank_targets, top_k

NAN = math.nan
SCORES = np.array(
    [
        [NAN, 9, 8, 7, 6, 5, 4],
        [NAN, 1, 9, 9, 2, 3, 2],
        [NAN, 1, 2, 3, 9, 0, 4],
        [NAN, NAN, 1, NAN, 0, 0, 2],
        [NAN, 1, 2, 3, 4, 5, 6],
    ]
)
SEEN = [np.array(row) for row in ([1], [2, 3], [4], [5], [6])]
TARGETS = np.array([2, 6, 5, 6, 0])
RANKS = [1, 3, 5, 3, 7]
LISTS = [[2, 3, 4], [5, 4, 6], [6, 3, 2], [6, 2, 4], [5, 4, 3]]
POPULARITY = np.array([0, 4, 3, 2, 1, 1, 1])
USERS = np.arange(5)


def test_the_ranks_are_those_of_the_table() -> None:
    assert rank_targets(SCORES, TARGETS, SEEN).tolist() == RANKS


def test_the_lists_are_those_worked_out() -> None:
    assert top_k(SCORES, 3, SEEN).tolist() == LISTS


def test_the_metrics_are_those_worked_out() -> None:
    found = ranking_metrics(USERS, np.array(RANKS), (1, 3, 10), n_items=6)
    assert found["hr_at_1"] == pytest.approx(1 / 5)
    assert found["hr_at_3"] == pytest.approx(3 / 5)
    assert found["hr_at_10"] == pytest.approx(4 / 5)
    assert found["recall_at_3"] == found["hr_at_3"]
    assert found["ndcg_at_1"] == pytest.approx(1 / 5)
    assert found["ndcg_at_3"] == pytest.approx((1 + 0.5 + 0.5) / 5)
    assert found["ndcg_at_10"] == pytest.approx((1 + 0.5 + 1 / math.log2(6) + 0.5) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 5 + 1 / 3) / 5)
    assert (found["users"], found["targets"]) == (5, 5)


def test_coverage_and_popularity_bias_are_those_worked_out() -> None:
    lists = np.array(LISTS)
    assert coverage(lists, 6) == pytest.approx(5 / 6)  # all but item 1
    recommended = (6 / 3 + 3 / 3 + 6 / 3 + 5 / 3 + 4 / 3) / 5
    profile = np.array([4, 2.5, 1, 1, 1])
    taken = profile.mean()
    found = popularity_bias(lists, profile, USERS, POPULARITY)
    assert found == pytest.approx((recommended - taken) / taken)
    assert recommended == pytest.approx(1.6)
    assert taken == pytest.approx(1.9)


def test_two_targets_of_one_user_share_that_users_weight() -> None:
    found = ranking_metrics(np.array([0, 0, 1]), np.array([1, 7, 2]), (3,), n_items=6)
    assert found["hr_at_3"] == 1.0
    assert found["recall_at_3"] == pytest.approx((0.5 + 1) / 2)
    assert found["ndcg_at_3"] == pytest.approx((0.5 + 1 / math.log2(3)) / 2)
    assert found["mrr"] == pytest.approx((0.5 + 0.5) / 2)
