from __future__ import annotations

import numpy as np
import pytest
import torch
from objectives import on_scores
from torch.nn import functional

from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.protocol import PositionBatch
from stillhouse.errors import StoreError


def _batch(made, rows: np.ndarray, weights: list[float] | None = None) -> PositionBatch:
    targets = made.items[made.offsets[made.users[rows]] + made.steps[rows] + 1]
    return PositionBatch(
        targets=torch.from_numpy(targets.astype(np.int64)),
        weights=torch.tensor(weights or [1.0] * len(rows)),
        users=torch.from_numpy(made.users[rows]),
        steps=torch.from_numpy(made.steps[rows]),
    )


def _scores(made, rows: np.ndarray, seed: int = 0) -> torch.Tensor:
    scores = torch.randn(len(rows), made.scores.shape[1], generator=torch.Generator().manual_seed(seed))
    scores[:, 0] = -torch.inf
    return scores


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_equals_its_teacher_has_no_soft_loss_and_no_soft_gradient(make_store, temperature):
    made = make_store([3, 9, 4], grid=0.125)
    rows = np.array([9, 0, 4])
    scores = torch.from_numpy(made.scores[rows]).index_fill(1, torch.tensor([0]), -torch.inf).requires_grad_()
    objective = MixedObjective(made.open(), made, alpha=0.0, temperature=temperature)
    loss = on_scores(objective, scores, _batch(made, rows))
    loss.total.backward()
    assert abs(loss.parts["soft_loss"].item()) < 1e-6
    assert scores.grad.abs().max() < 1e-6


def test_a_store_without_a_tail_gives_the_whole_divergence(make_store):
    made = make_store([3, 9, 4], k=30, grid=0.125)
    rows = np.arange(5)
    scores = _scores(made, rows)
    objective = MixedObjective(made.open(), made, alpha=0.3, temperature=2.0)
    loss = on_scores(objective, scores, _batch(made, rows, [1.0, 0.5, 2.0, 0.0, 1.0]))
    expected = 0.0
    for row in rows:
        left = [item for item in range(1, 31) if item not in made.seen()[row]]
        p = (torch.from_numpy(made.scores[row, left]) / 2).log_softmax(0)
        expected += (p.exp() * (p - (scores[row, left] / 2).log_softmax(0))).sum().item() / len(rows)
    assert loss.parts["soft_loss"].item() == pytest.approx(expected, rel=1e-5)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0])
    hard = functional.cross_entropy(scores, _batch(made, rows).targets, reduction="none")
    assert loss.parts["hard_loss"].item() == pytest.approx(((hard * weights).sum() / weights.sum()).item(), rel=1e-5)


def test_the_total_is_alpha_hard_and_the_rest_soft_times_temperature_squared(make_store):
    made = make_store([3, 9, 4])
    rows = np.arange(6)
    for alpha in (0.0, 0.25, 0.9):
        loss = on_scores(
            MixedObjective(made.open(), made, alpha=alpha, temperature=2.0), _scores(made, rows), _batch(made, rows)
        )
        hard, soft = loss.parts["hard_loss"], loss.parts["soft_loss"]
        assert loss.total.item() == pytest.approx((alpha * hard + (1 - alpha) * 4 * soft).item(), rel=1e-6)
        assert not hard.requires_grad
        assert not soft.requires_grad


def test_alpha_one_is_the_hard_loss_alone(make_store):
    made = make_store([3, 9, 4])
    rows = np.arange(6)
    loss = on_scores(
        MixedObjective(made.open(), made, alpha=1.0, temperature=2.0), _scores(made, rows), _batch(made, rows)
    )
    assert set(loss.parts) == {"hard_loss"}
    assert loss.total.item() == loss.parts["hard_loss"].item()


def test_positions_that_the_store_lacks_learn_from_the_hard_loss_alone(make_store):
    made = make_store([9], length=3)
    steps = np.array([4, 5, 7])  # the store holds 5..7
    batch = PositionBatch(
        targets=torch.from_numpy(made.items[steps + 1].astype(np.int64)),
        weights=torch.ones(3),
        users=torch.zeros(3, dtype=torch.int64),
        steps=torch.from_numpy(steps),
    )
    scores = _scores(made, steps).requires_grad_()
    objective = MixedObjective(made.open(), made, alpha=0.5, temperature=1.0)
    loss = on_scores(objective, scores, batch)
    held = on_scores(
        objective, scores[1:], PositionBatch(*(getattr(batch, n)[1:] for n in ("targets", "weights", "users", "steps")))
    )
    assert torch.equal(loss.parts["soft_loss"], held.parts["soft_loss"])
    loss.total.backward()
    hard_only = scores.detach().clone().requires_grad_()
    (0.5 * functional.cross_entropy(hard_only, batch.targets)).backward()
    assert torch.allclose(scores.grad[0], hard_only.grad[0])
    assert not torch.allclose(scores.grad[1], hard_only.grad[1])


def test_a_batch_without_any_stored_position_has_no_soft_loss(make_store):
    made = make_store([9], length=3)
    batch = PositionBatch(torch.tensor([1]), torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    scores = _scores(made, np.array([0])).requires_grad_()
    loss = on_scores(MixedObjective(made.open(), made, alpha=0.5, temperature=1.0), scores, batch)
    loss.total.backward()
    assert loss.parts["soft_loss"].item() == 0.0
    assert scores.grad.isfinite().all()


def test_with_repeats_nothing_is_masked(make_store):
    made = make_store([9, 4], k=30, repeat_items=True, grid=0.125)
    store = made.open(repeat_items=True)
    rows = np.arange(4)
    scores = _scores(made, rows)
    loss = on_scores(MixedObjective(store, made, alpha=0.0, temperature=1.0), scores, _batch(made, rows))
    p = torch.from_numpy(made.scores[rows, 1:]).log_softmax(1)
    expected = (p.exp() * (p - scores[:, 1:].log_softmax(1))).sum(1).mean()
    assert loss.parts["soft_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_temperature_that_the_store_lacks_is_refused_before_training(make_store):
    made = make_store([9])
    with pytest.raises(StoreError, match="temperature must be one of"):
        MixedObjective(made.open(), made, alpha=0.5, temperature=3.0)


def test_draws_in_the_store_change_the_loss(make_store):
    """No dead data: with and without draws, the same teacher gives another gradient."""
    losses = []
    for samples in (0, 8):
        made = make_store([9, 4], tail_samples=samples, name=f"s{samples}")
        rows = np.arange(4)
        objective = MixedObjective(made.open(), made, alpha=0.0, temperature=1.0)
        losses.append(on_scores(objective, _scores(made, rows), _batch(made, rows)).total.item())
    assert losses[1] > losses[0]


def test_gradient_steps_on_the_soft_loss_bring_a_student_to_its_teacher(make_store):
    made = make_store([9, 12, 12], n_items=20, k=5, tail_samples=8)
    rows = np.arange(len(made.users))
    scores = torch.zeros(len(rows), 21, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    objective = MixedObjective(made.open(), made, alpha=0.0, temperature=2.0)
    first = on_scores(objective, scores, _batch(made, rows)).parts["soft_loss"].item()
    for _ in range(200):
        loss = on_scores(objective, scores, _batch(made, rows))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    assert loss.parts["soft_loss"].item() < 1e-3 * first
    batch = made.open().batch(np.arange(len(rows)), 2.0)
    probs = (scores / 2).detach()
    for row, seen in enumerate(made.seen()):
        left = [item for item in range(1, 21) if item not in seen]
        logs = probs[row] - probs[row, left].logsumexp(0)
        expected = batch.scores[row] / 2 - batch.lse[row]
        np.testing.assert_allclose(logs[batch.items[row]].numpy(), expected, atol=0.05)
