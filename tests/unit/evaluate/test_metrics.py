"""Metrics against pytrec_eval and against a slow form, to 1e-9."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval

from stillhouse.evaluate.metrics import coverage, ndcg, per_user, popularity_bias, ranking_metrics
from stillhouse.evaluate.ranking import rank_targets

KS = (1, 5, 10, 20)


def scores_without_ties(n: int, items: int) -> np.ndarray:
    """Whole numbers, which pytrec_eval's single precision keeps apart."""
    generator = np.random.default_rng(5)
    return np.stack([generator.permutation(items + 1).astype(np.float64) for _ in range(n)])


def test_every_metric_agrees_with_pytrec_eval() -> None:
    n, items = 200, 60
    scores = scores_without_ties(n, items)
    generator = np.random.default_rng(6)
    targets = generator.integers(1, items + 1, n)
    seen = [np.setdiff1d(generator.integers(1, items + 1, 12), [target]) for target in targets]
    found = ranking_metrics(np.arange(n), rank_targets(scores, targets, seen), KS, items)

    truth = {f"q{row}": {f"d{target}": 1} for row, target in enumerate(targets)}
    run = {
        f"q{row}": {f"d{item}": float(scores[row, item]) for item in range(1, items + 1) if item not in seen[row]}
        for row in range(n)
    }
    cuts = ",".join(map(str, KS))
    asked = {f"ndcg_cut.{cuts}", f"recall.{cuts}", f"success.{cuts}", "recip_rank"}
    judged = pytrec_eval.RelevanceEvaluator(truth, asked).evaluate(run)

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in judged.values()]))

    for k in KS:
        assert found[f"ndcg_at_{k}"] == pytest.approx(mean(f"ndcg_cut_{k}"), abs=1e-9)
        assert found[f"recall_at_{k}"] == pytest.approx(mean(f"recall_{k}"), abs=1e-9)
        assert found[f"hr_at_{k}"] == pytest.approx(mean(f"success_{k}"), abs=1e-9)
    assert found["mrr"] == pytest.approx(mean("recip_rank"), abs=1e-9)


def slow(users: list[int], ranks: list[int], k: int, n_items: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {"hr": [], "recall": [], "ndcg": [], "mrr": []}
    for user in sorted(set(users)):
        own = [rank for other, rank in zip(users, ranks, strict=True) if other == user]
        in_list = [rank <= k and rank <= n_items for rank in own]
        gains = [1 / math.log2(rank + 1) if hit else 0.0 for rank, hit in zip(own, in_list, strict=True)]
        figures["hr"].append(1.0 if any(in_list) else 0.0)
        figures["recall"].append(sum(in_list) / len(own))
        figures["ndcg"].append(sum(gains) / len(own))
        figures["mrr"].append(sum(1 / rank if rank <= n_items else 0.0 for rank in own) / len(own))
    return {name: sum(values) / len(values) for name, values in figures.items()}


@pytest.mark.parametrize("n_items", [3, 15, 200])
def test_every_metric_agrees_with_a_slow_form_where_users_have_several_targets(n_items: int) -> None:
    generator = np.random.default_rng(n_items)
    users, ranks = generator.integers(0, 30, 150), generator.integers(1, n_items + 2, 150)
    found = ranking_metrics(users, ranks, KS, n_items)
    for k in KS:
        expected = slow(users.tolist(), ranks.tolist(), k, n_items)
        for name in ("hr", "recall", "ndcg"):
            assert found[f"{name}_at_{k}"] == pytest.approx(expected[name], abs=1e-9)
        assert found["mrr"] == pytest.approx(expected["mrr"], abs=1e-9)


def test_a_miss_scores_nothing_even_where_k_is_above_the_number_of_items() -> None:
    found = ranking_metrics(np.array([0]), np.array([4]), (10,), n_items=3)
    assert (found["hr_at_10"], found["ndcg_at_10"], found["recall_at_10"], found["mrr"]) == (0.0, 0.0, 0.0, 0.0)


def test_without_rows_every_figure_is_none() -> None:
    empty = np.zeros(0, np.int64)
    assert ranking_metrics(empty, empty, (10,), 5) == {
        "users": 0,
        "targets": 0,
        "hr_at_10": None,
        "ndcg_at_10": None,
        "recall_at_10": None,
        "mrr": None,
    }


def test_a_user_with_many_targets_counts_once() -> None:
    users, values = per_user(np.array([0.0, 0.0, 0.0, 1.0]), np.array([4, 4, 4, 2]))
    assert (users.tolist(), values.tolist()) == ([2, 4], [1.0, 0.0])


def test_ndcg_falls_with_the_rank_and_ends_at_the_cut() -> None:
    values = ndcg(np.arange(1, 13), 10, 100)
    assert (np.diff(values[:10]) < 0).all()
    assert values[9] == pytest.approx(1 / math.log2(11))
    assert values[10:].tolist() == [0.0, 0.0]


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert coverage(np.array([[1, 2], [1, 0]]), 8) == 0.25
    assert coverage(np.zeros((3, 2), np.int64), 8) == 0.0
    assert coverage(np.zeros((0, 2), np.int64), 8) is None
    assert coverage(np.zeros((2, 0), np.int64), 0) is None


def test_popularity_bias_compares_lists_with_what_users_took() -> None:
    popularity = np.array([0, 10, 4, 2])
    top, profile, users = np.array([[1, 2], [1, 0], [3, 0]]), np.array([4.0, 4.0, np.nan]), np.array([0, 0, 1])
    # user 0: lists of mean popularity 7 and 10, so 8.5, against 4; user 1 has no history and is left out.
    assert popularity_bias(top, profile, users, popularity) == pytest.approx((8.5 - 4) / 4)


def test_popularity_bias_is_none_where_there_is_nothing_to_compare() -> None:
    popularity = np.array([0, 1])
    assert popularity_bias(np.array([[1]]), np.array([np.nan]), np.array([0]), popularity) is None
    assert popularity_bias(np.array([[0]]), np.array([1.0]), np.array([0]), popularity) is None
    assert popularity_bias(np.array([[1]]), np.array([0.0]), np.array([0]), np.array([0, 0])) is None
