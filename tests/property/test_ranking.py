"""Ranking against a slow form written down from its definition."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.evaluate.ranking import rank_targets, top_k

SCORE = st.one_of(st.sampled_from([-1.0, 0.0, 1.0, math.nan, -math.inf, math.inf]), st.floats(-5, 5, width=32))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rows, items = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    row = st.lists(SCORE, min_size=items + 1, max_size=items + 1)
    scores = np.array(draw(st.lists(row, min_size=rows, max_size=rows)), dtype=np.float32)
    targets = np.array(draw(st.lists(st.integers(0, items), min_size=rows, max_size=rows)))
    taken = st.lists(st.integers(0, items), max_size=6)
    seen = [np.array(one, dtype=np.int64) for one in draw(st.lists(taken, min_size=rows, max_size=rows))]
    return scores, targets, seen


def slow_rank(scores: np.ndarray, target: int, seen: set[int]) -> int:
    miss = len(scores)
    if target == 0 or target in seen or math.isnan(scores[target]) or scores[target] == -math.inf:
        return miss
    others = [item for item in range(1, len(scores)) if item not in seen and item != target]
    return 1 + sum(1 for item in others if math.isnan(scores[item]) or scores[item] >= scores[target])


@given(cases())
def test_ranks_agree_with_the_definition(case: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> None:
    scores, targets, seen = case
    found = rank_targets(scores, targets, seen)
    expected = [slow_rank(scores[i], int(targets[i]), set(seen[i].tolist())) for i in range(len(targets))]
    assert found.tolist() == expected


@given(cases(), st.integers(1, 10))
def test_lists_agree_with_a_full_sort(case: tuple[np.ndarray, np.ndarray, list[np.ndarray]], k: int) -> None:
    scores, _, seen = case
    found = top_k(scores, k, seen)
    for i in range(len(scores)):
        usable = [
            item
            for item in range(1, scores.shape[1])
            if item not in seen[i] and not math.isnan(scores[i, item]) and scores[i, item] != -math.inf
        ]
        expected = sorted(usable, key=lambda item: (-scores[i, item], item))[:k]
        assert found[i].tolist() == expected + [0] * (found.shape[1] - len(expected))


@given(cases())
def test_without_ties_the_rank_is_the_place_in_the_list(case: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> None:
    scores, targets, seen = case
    distinct = np.argsort(np.argsort(np.nan_to_num(scores, neginf=-9), axis=1), axis=1).astype(np.float32)
    ranks, lists = rank_targets(distinct, targets, seen), top_k(distinct, scores.shape[1], seen)
    for rank, target, row in zip(ranks, targets, lists, strict=True):
        assert rank == (row.tolist().index(target) + 1 if target and target in row else scores.shape[1])
