"""The hard loss, against its definition."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from objectives import on_scores

from stillhouse.distill.hard import HardObjective, hard_loss
from stillhouse.distill.protocol import PositionBatch

SCORES = torch.tensor([[-math.inf, 1.0, 2.0, 3.0], [-math.inf, 0.5, 0.0, -0.5]])
TARGETS = torch.tensor([3, 1])


def test_hard_loss_is_the_weighted_mean_of_minus_the_log_probabilities() -> None:
    exact = SCORES.double().numpy()[:, 1:]
    probs = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    expected = -(0.4 * np.log(probs[0, 2]) + 1.0 * np.log(probs[1, 0])) / 1.4
    assert hard_loss(SCORES, TARGETS, torch.tensor([0.4, 1.0])).item() == pytest.approx(expected, rel=1e-6)


def test_a_position_without_weight_changes_nothing() -> None:
    alone = hard_loss(SCORES[:1], TARGETS[:1], torch.ones(1))
    assert hard_loss(SCORES, TARGETS, torch.tensor([1.0, 0.0])).item() == pytest.approx(alone.item())


@pytest.mark.parametrize("rows", [0, 2])
def test_no_weight_at_all_gives_zero_and_no_gradient(rows: int) -> None:
    scores = SCORES[:rows].clone().requires_grad_()
    loss = hard_loss(scores, TARGETS[:rows], torch.zeros(rows))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_the_gradient_is_finite_with_a_masked_column_and_matches_finite_differences() -> None:
    scores = SCORES[:, 1:].double().requires_grad_()
    weights = torch.tensor([0.4, 1.0], dtype=torch.float64)
    masked = torch.full((2, 1), -math.inf, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        logs = torch.log_softmax(torch.cat([masked, values], dim=1), dim=1)
        return -(weights * logs.gather(1, TARGETS[:, None]).squeeze(1)).sum() / weights.sum()

    assert torch.autograd.gradcheck(loss, (scores,))
    mine = SCORES.clone().requires_grad_()
    hard_loss(mine, TARGETS, weights.float()).backward()
    loss(scores).backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad[:, 1:].double(), scores.grad, atol=1e-6, rtol=1e-5)
    assert not mine.grad[:, 0].any()


def test_the_objective_is_the_hard_loss_and_names_it() -> None:
    batch = PositionBatch(TARGETS, torch.ones(2), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    found = on_scores(HardObjective(), SCORES, batch)
    assert found.total.item() == hard_loss(SCORES, TARGETS, torch.ones(2)).item()
    assert {name: value.item() for name, value in found.parts.items()} == {"hard_loss": found.total.item()}
    assert len(batch) == 2


def test_seen_items_are_no_candidates_and_feel_no_gradient() -> None:
    histories = SimpleNamespace(items=np.array([3, 1, 2, 4], np.int32), offsets=np.array([0, 4]))
    steps = torch.tensor([0, 1, 2])  # have seen {3}, {3, 1}, {3, 1, 2}
    batch = PositionBatch(torch.tensor([1, 2, 4]), torch.tensor([1.0, 2.0, 1.0]), torch.zeros(3).long(), steps)
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = on_scores(HardObjective(histories=histories), scores, batch).total
    masked = scores.detach().clone()
    for row, gone in enumerate([[0, 3], [0, 3, 1], [0, 3, 1, 2]]):
        masked[row, gone] = -torch.inf
    each = torch.nn.functional.cross_entropy(masked, batch.targets, reduction="none")
    assert found.item() == pytest.approx(((each * batch.weights).sum() / 4.0).item(), rel=1e-6)
    found.backward()
    assert scores.grad is not None
    assert scores.grad[2, [1, 2, 3]].abs().max() == 0.0
    assert scores.grad[0, 1] < 0.0
