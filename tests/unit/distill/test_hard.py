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


#: Position t of one user, whose events these are, has seen the first t + 1 of them.
EVENTS = np.array([3, 1, 2, 5, 4], np.int64)
ALL_BUT_ONE = PositionBatch(
    torch.tensor([1, 2, 5, 4]), torch.tensor([1.0, 2.0, 0.5, 1.0]).double(), torch.zeros(4).long(), torch.arange(4)
)


def smoothed() -> HardObjective:
    return HardObjective(0.2, SimpleNamespace(items=EVENTS, offsets=np.array([0, len(EVENTS)])))


def smoothed_by_hand(scores: np.ndarray) -> float:
    """Return the cross-entropy against labels of .8 and .2 spread over what is unseen, from probabilities."""
    total = 0.0
    for row, (target, weight) in enumerate(zip(ALL_BUT_ONE.targets.tolist(), ALL_BUT_ONE.weights, strict=True)):
        left = [item for item in range(1, scores.shape[1]) if item not in EVENTS[: row + 1]]
        probs = np.exp(scores[row, left]) / np.exp(scores[row, left]).sum()
        labels = 0.2 / len(left) + 0.8 * (np.array(left) == target)
        total -= float(weight) * float(labels @ np.log(probs))
    return total / float(ALL_BUT_ONE.weights.sum())


@pytest.mark.parametrize("n_items", [5, 9])  # with five the last position has one candidate: it teaches nothing
def test_smoothed_labels_are_spread_over_the_unseen_items_alone(n_items: int) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(4, n_items + 1, generator=draw, dtype=torch.float64).requires_grad_()
    found = on_scores(smoothed(), scores, ALL_BUT_ONE).total
    assert found.item() == pytest.approx(smoothed_by_hand(scores.detach().numpy()), rel=1e-12)
    found.backward()
    assert scores.grad is not None
    for row in range(4):
        assert not scores.grad[row, [0, *EVENTS[: row + 1]]].any()
    torch.testing.assert_close(scores.grad.sum(dim=1), torch.zeros(4).double(), atol=1e-12, rtol=0.0)
    step, plain = 1e-6, scores.detach().numpy()
    for row, item in np.ndindex(4, n_items + 1):
        moved = np.zeros_like(plain)
        moved[row, item] = step
        slope = (smoothed_by_hand(plain + moved) - smoothed_by_hand(plain - moved)) / (2 * step)
        assert scores.grad[row, item].item() == pytest.approx(slope, abs=1e-8)


def test_smoothing_where_everything_was_seen_stays_finite() -> None:
    batch = PositionBatch(torch.tensor([4]), torch.ones(1).double(), torch.zeros(1).long(), torch.tensor([4]))
    scores = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    found = on_scores(smoothed(), scores, batch).total
    found.backward()
    assert found.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
