from __future__ import annotations

import numpy as np

from stillhouse.distill.draws import uniforms


def test_numbers_of_a_position_do_not_depend_on_its_company():
    users, steps = np.arange(50), np.arange(50) % 7
    together = uniforms(3, users, steps, 4)
    for row in (0, 17, 49):
        alone = uniforms(3, users[row : row + 1], steps[row : row + 1], 4)
        assert np.array_equal(alone[0], together[row])
    assert np.array_equal(uniforms(3, users, steps, 2), together[:, :2])


def test_seed_user_and_step_each_change_every_number():
    base = uniforms(1, np.array([4]), np.array([5]), 64)
    for other in (
        uniforms(2, np.array([4]), np.array([5]), 64),
        uniforms(1, np.array([5]), np.array([5]), 64),
        uniforms(1, np.array([4]), np.array([6]), 64),
        uniforms(1, np.array([5]), np.array([4]), 64),
    ):
        assert not (base == other).any()


def test_numbers_are_uniform_and_unrelated():
    numbers = uniforms(0, np.repeat(np.arange(500), 20), np.tile(np.arange(20), 500), 10)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=20, range=(0.0, 1.0))
    expected = numbers.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = .001
    related = np.corrcoef(np.column_stack([numbers[:-1, 0], numbers[1:, 0], numbers[:-1, 1]]).T) - np.eye(3)
    assert np.abs(related).max() < 0.04
