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
    assert learning_rate(TrainingSpec(learning_rate=0.1, warmup_steps=10), step) == pytest.approx(expected)


def test_without_a_warm_up_the_first_step_is_full() -> None:
    assert learning_rate(TrainingSpec(learning_rate=0.1, warmup_steps=0), 0) == 0.1
