"""The bootstrap bound, and which targets are paired."""

from __future__ import annotations

import numpy as np
import pytest

from stillhouse.evaluate import paired
from stillhouse.evaluate.paired import common_rows, interval, lower_bound


def test_the_same_seed_gives_the_same_bound_and_another_one_another() -> None:
    values = np.random.default_rng(0).normal(size=100)
    assert lower_bound(values, 0.95, 500, seed=1) == lower_bound(values, 0.95, 500, seed=1)
    assert lower_bound(values, 0.95, 500, seed=1) != lower_bound(values, 0.95, 500, seed=2)


def test_the_bound_is_near_the_normal_one_for_many_users() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 4000)
    expected = values.mean() - 1.645 * values.std() / np.sqrt(len(values))
    assert lower_bound(values, 0.95, 2000, seed=3) == pytest.approx(expected, abs=0.004)


def test_more_confidence_and_fewer_users_lower_the_bound() -> None:
    values = np.random.default_rng(1).normal(size=400)
    assert lower_bound(values, 0.99, 1000, seed=1) < lower_bound(values, 0.9, 1000, seed=1) < values.mean()
    few, many = np.tile([1.0, -1.0], 10), np.tile([1.0, -1.0], 1000)
    assert lower_bound(few, 0.95, 1000, seed=1) < lower_bound(many, 0.95, 1000, seed=1) < 0


def test_the_bound_is_right_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    right = sum(lower_bound(generator.normal(size=80), 0.9, 200, seed=trial) <= 0 for trial in range(200))
    assert 165 <= right <= 194


def test_drawing_in_parts_uses_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "_DRAWS", 30)
    values = np.random.default_rng(1).normal(size=10)
    assert lower_bound(values, 0.95, 1001, seed=1) < values.mean()


def test_the_interval_lies_around_the_mean_and_its_ends_are_one_sided_bounds() -> None:
    values = np.random.default_rng(2).normal(0.1, 1.0, 500)
    low, high = interval(values, 0.9, 1000, seed=1)
    assert low < values.mean() < high
    assert low == lower_bound(values, 0.95, 1000, seed=1)
    mirrored = interval(-values, 0.9, 1000, seed=1)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high))


def test_no_users_have_no_bound() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        lower_bound(np.zeros(0), 0.95, 100, seed=1)


def test_targets_are_paired_by_user_item_and_occurrence() -> None:
    users_a, items_a = np.array([0, 0, 0, 1, 2]), np.array([5, 5, 6, 5, 9])
    users_b, items_b = np.array([1, 0, 0, 0]), np.array([5, 5, 7, 5])
    rows_a, rows_b = common_rows(users_a, items_a, users_b, items_b)
    assert rows_a.tolist() == [0, 1, 3]
    assert rows_b.tolist() == [1, 3, 0]


def test_nothing_in_common_pairs_nothing() -> None:
    empty = np.zeros(0, np.int64)
    for users in (empty, np.array([3])):
        rows_a, rows_b = common_rows(np.array([1]), np.array([1]), users, users)
        assert len(rows_a) == len(rows_b) == 0
