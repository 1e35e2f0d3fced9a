from __future__ import annotations

import numpy as np
import pytest

from stillhouse.distill.draws import Strata, strata_of, tail_draws

POPULAR = np.array([500, 3, 0, 40, 40, 7, 0, 1, 90, 12] * 7)


def test_what_a_position_draws_does_not_depend_on_its_company():
    strata = strata_of(POPULAR, 9)
    users, steps = np.arange(50), np.arange(50) % 7
    together = tail_draws(3, users, steps, strata)
    for row in (0, 17, 49):
        alone = tail_draws(3, users[row : row + 1], steps[row : row + 1], strata)
        assert np.array_equal(alone[0], together[row])


def test_seed_user_and_step_each_change_what_is_drawn():
    strata = strata_of(np.ones(10_000, np.int64), 64)
    base = tail_draws(1, np.array([4]), np.array([5]), strata)
    for seed, user, step in ((2, 4, 5), (1, 5, 5), (1, 4, 6), (1, 5, 4)):
        assert (base == tail_draws(seed, np.array([user]), np.array([step]), strata)).sum() < 5


def test_each_item_of_a_stratum_is_as_likely_and_strata_are_unrelated():
    strata = Strata(np.arange(1, 41, dtype=np.uint8), np.array([8, 40]))
    drawn = tail_draws(0, np.repeat(np.arange(1000), 20), np.tile(np.arange(20), 1000), strata).astype(int)
    for column, (first, last) in enumerate(((1, 8), (9, 40))):
        counts = np.bincount(drawn[:, column], minlength=41)[first : last + 1]
        assert counts.sum() == len(drawn)
        expected = len(drawn) / len(counts)
        limit = {8: 24.3, 32: 61.1}[len(counts)]  # chi-squared, p = .001
        assert ((counts - expected) ** 2 / expected).sum() < limit
    neighbours = np.column_stack([drawn[:-1, 0], drawn[1:, 0], drawn[:-1, 1], drawn[1:, 1]])
    assert np.abs(np.corrcoef(neighbours.T) - np.eye(4)).max() < 0.03


def test_the_mean_over_draws_estimates_a_sum_over_all_items_without_bias():
    strata = strata_of(POPULAR, 9)
    values = np.random.default_rng(0).normal(3.0, 5.0, len(POPULAR) + 1)
    n = 40_000
    drawn = tail_draws(5, np.arange(n), np.zeros(n, np.int64), strata)
    estimates = (values[drawn] / np.exp(strata.logq.astype(np.float64))).mean(axis=1)
    assert abs(estimates.mean() - values[1:].sum()) < 4 * estimates.std() / np.sqrt(n)
    assert np.exp(strata.logq.astype(np.float64)) @ strata.sizes == pytest.approx(1.0, rel=1e-6)


def test_popular_items_stand_in_narrower_strata():
    strata = strata_of(POPULAR, 9)
    assert strata.items[:7].tolist() == [1, 11, 21, 31, 41, 51, 61]
    assert sorted(strata.items.tolist()) == list(range(1, 71))
    assert (np.diff(strata.sizes) >= 0).mean() > 0.8
    assert 2 * strata.sizes[0] < strata.sizes[-1]


@pytest.mark.parametrize(("n_items", "samples", "made"), [(1, 3, 1), (5, 5, 5), (5, 9, 5), (1000, 0, 0), (300, 40, 40)])
def test_there_are_no_more_strata_than_items_and_none_is_empty(n_items, samples, made):
    for counts in (np.zeros(n_items, np.int64), np.arange(n_items) ** 3, np.eye(1, n_items, dtype=np.int64)[0] * 10**9):
        strata = strata_of(counts, samples)
        assert len(strata) == made
        assert strata.sizes.min(initial=1) >= 1
        assert strata.sizes.sum() == (n_items if made else 0)
        assert tail_draws(0, np.arange(3), np.arange(3), strata).shape == (3, made)
