"""The optimiser's settings reach the weights that they are about."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stillhouse.params.model import TrainingSpec
from stillhouse.train.optimizer import adamw, learning_rate, set_learning_rate


def test_only_matrices_decay() -> None:
    model = nn.Linear(2, 2)
    optimizer = adamw(model, TrainingSpec(weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    (0.0 * sum(weight.sum() for weight in model.parameters())).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before["bias"])


@pytest.mark.parametrize(("step", "expected"), [(0, 0.01), (9, 0.1), (10, 0.1), (10_000, 0.1)])
def test_the_rate_rises_to_its_full_size(step: int, expected: float) -> None:
    assert learning_rate(TrainingSpec(learning_rate=0.1, warmup_steps=10), step, 20_000) == pytest.approx(expected)


def test_without_a_warm_up_the_first_step_is_full() -> None:
    assert learning_rate(TrainingSpec(learning_rate=0.1, warmup_steps=0), 0, 9) == 0.1


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_falling_rate_starts_full_after_the_rise_and_ends_near_nothing(schedule: str) -> None:
    spec = TrainingSpec(learning_rate=0.1, warmup_steps=10, schedule=schedule)
    rates = [learning_rate(spec, step, 110) for step in range(110)]
    assert rates[10] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05)
    assert 0.0 < rates[109] < 0.002
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_warm_start_goes_through_the_whole_fall() -> None:
    """The planned steps are those of the epochs that will be trained, fewer on a warm night."""
    spec = TrainingSpec(learning_rate=0.1, warmup_steps=0, schedule="linear")
    assert learning_rate(spec, 9, 10) == pytest.approx(0.01)
    assert learning_rate(spec, 10, 10) == 0.0
