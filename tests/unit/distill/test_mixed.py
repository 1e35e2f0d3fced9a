from __future__ import annotations

import numpy as np
import pytest
import torch
from objectives import on_scores
from teaching import Remembered, Rows
from torch.nn import functional

from stillhouse.distill.catalogue import look
from stillhouse.distill.hard import HardObjective
from stillhouse.distill.listwise import Listwise
from stillhouse.distill.method import WeightedMethod
from stillhouse.distill.mixed import Listening, MixedObjective
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.relations import Relations
from stillhouse.distill.schedules import ByConfidence, Curve, NearConfidence
from stillhouse.distill.soft import Soft
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


@pytest.mark.parametrize("candidates", ["all", "unseen"])
def test_what_is_said_of_another_position_changes_no_candidate_of_one_that_the_store_lacks(candidates):
    lacking, batch = Remembered(ROWS, lacks=[1, 2, 3]), STORE.positions(torch.arange(4))
    assert set(ROWS.head(0)) & set(ROWS.seen[2]), "the row that it would borrow names what it has seen"
    mixed = MixedObjective(lacking, lacking, alpha=0.5, temperature=1.0, candidates=candidates)
    hard = HardObjective(histories=STORE if candidates == "unseen" else None)
    losses, gradients = [], []
    for objective in (mixed, hard):
        scores = SCORES[:4].clone().requires_grad_()
        found = on_scores(objective, scores, batch)
        found.total.backward()
        losses.append(found.parts["hard_loss"])
        gradients.append(scores.grad)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(2.0 * gradients[0][1:], gradients[1][1:])


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


ROWS = Rows.drawn()
STORE = Remembered(ROWS)
SCORES = torch.from_numpy(np.random.default_rng(4).normal(0.0, 2.0, (6, 15)))


def _mixed(**changes):
    return MixedObjective(STORE, STORE, **{"alpha": 0.5, "temperature": 1.0} | changes)


def _said(progress=0.0, users=None, **changes):
    return on_scores(_mixed(**changes), SCORES, STORE.positions(users, progress))


def test_methods_are_mixed_by_weight_and_scale():
    methods = [WeightedMethod(Soft(), 0.5), WeightedMethod(Listwise(), 3.0)]
    found = _said(alpha=0.2, temperature=2.0, methods=methods)
    parts = {name: value.item() for name, value in found.parts.items()}
    assert set(parts) == {"hard_loss", "soft_loss", "listwise_loss"}
    expected = 0.2 * parts["hard_loss"] + 0.8 * (0.5 * 4 * parts["soft_loss"] + 3.0 * 2 * parts["listwise_loss"])
    assert found.total.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_hard_loss_runs_over_unseen_items_or_over_all(temperature):
    batch = STORE.positions(torch.arange(4))  # positions whose target is unseen
    rows, items = ROWS.pairs()
    unseen = SCORES.index_put((rows, items), torch.tensor(-torch.inf, dtype=torch.float64))
    for candidates, table in [("all", SCORES), ("unseen", unseen)]:
        objective = _mixed(candidates=candidates, temperature=temperature)
        expected = functional.cross_entropy(table[:4, 1:], batch.targets - 1)
        torch.testing.assert_close(on_scores(objective, SCORES[:4], batch).parts["hard_loss"], expected)


def test_alpha_follows_its_curve():
    curve = Curve(1.0, 0.0, until=0.5)
    for progress, alpha in [(0.25, 0.5), (0.4, 0.2), (0.9, 0.0)]:
        assert torch.equal(_said(progress, alpha=curve).total, _said(alpha=curve.at(progress)).total)
        assert curve.at(progress) == pytest.approx(alpha)


def test_while_alpha_is_one_the_teachers_parts_are_told_as_nothing():
    found = _said(0.0, alpha=Curve(1.0, 0.0), methods=[WeightedMethod(Soft(), 1.0), WeightedMethod(Listwise(), 1.0)])
    assert {name: value.item() for name, value in found.parts.items() if name != "hard_loss"} == {
        "soft_loss": 0.0,
        "listwise_loss": 0.0,
    }
    assert found.total.item() == found.parts["hard_loss"].item()


def test_the_last_share_of_the_steps_learns_from_people_alone():
    listening = Listening(finetune=0.25)
    assert _said(0.74, listening=listening).parts["soft_loss"].item() > 0.0
    late = _said(0.75, listening=listening)
    assert (late.total.item(), late.parts["soft_loss"].item()) == (late.parts["hard_loss"].item(), 0.0)


def test_a_weight_by_position_weighs_each_positions_two_losses():
    alpha = ByConfidence(sure=0.1, unsure=0.9)
    expected = 0.0
    for row, weight in enumerate(alpha.at(ROWS.teacher())):
        parts = on_scores(_mixed(), SCORES[row : row + 1], STORE.positions(torch.tensor([row]))).parts
        expected += (weight * parts["hard_loss"] + (1 - weight) * parts["soft_loss"]) / 6
    torch.testing.assert_close(_said(alpha=alpha).total, expected, rtol=1e-6, atol=0)


def test_the_temperature_steps_through_the_stored_ones():
    curve = Curve(4.0, 0.5)
    for progress, temperature in [(0.0, 2.0), (0.7, 2.0), (0.8, 1.0), (0.99, 1.0)]:
        assert torch.equal(_said(progress, temperature=curve).total, _said(temperature=temperature).total)


def test_an_adaptive_temperature_takes_the_one_at_which_the_teacher_is_as_sure_as_asked():
    sure = {t: float(np.exp(-STORE.batch(np.arange(5), t).lse).mean()) for t in (1.0, 2.0)}  # row 5 has no choice
    for temperature in (1.0, 2.0):
        found = _said(temperature=NearConfidence(sure[temperature]))
        assert torch.equal(found.total, _said(temperature=temperature).total)
    empty = Remembered(ROWS, lacks=range(6))
    found = on_scores(
        MixedObjective(empty, empty, alpha=0.5, temperature=NearConfidence(0.5)), SCORES, STORE.positions()
    )
    assert found.parts["soft_loss"].item() == 0.0


def test_where_the_store_has_nothing_an_adaptive_weight_is_that_of_an_unsure_teacher():
    store = Remembered(ROWS, lacks=[0, 1])
    lesson = MixedObjective(store, store, alpha=ByConfidence(0.1, 0.9), temperature=1.0).lesson(STORE.positions())
    assert lesson._pull[:2].tolist() == pytest.approx([0.9 / 6] * 2)
    assert lesson._pull[2:].max() < 0.9 / 6


def test_trust_moves_the_teachers_weight_among_positions_and_keeps_its_sum():
    heard = _mixed(listening=Listening("where_right", right_within=3)).lesson(STORE.positions())._heard
    assert heard.tolist() == [0.25] * 4 + [0.0] * 2
    assert _mixed(listening=Listening("by_confidence")).lesson(STORE.positions())._heard.sum().item() == pytest.approx(
        1
    )


def test_relations_are_told_beside_the_parts_and_not_forgotten():
    objective = _mixed(alpha=0.25, methods=[WeightedMethod(Soft(), 1.0), WeightedMethod(Relations(), 2.0)])
    lesson = objective.lesson(STORE.positions())
    with pytest.raises(RuntimeError, match="`beside` must be asked before"):
        lesson.loss(_look(lesson), 0, 6)
    states = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = lesson.beside(states)
    assert found.total.item() == pytest.approx(0.75 * 2.0 * found.parts["relation_loss"].item(), rel=1e-6)
    assert set(lesson.loss(_look(lesson), 0, 6).parts) == {"hard_loss", "soft_loss"}
    assert _mixed().lesson(STORE.positions()).beside(states) is None


def test_half_precision_around_a_lesson_changes_none_of_it():
    """A loop in mixed precision hands on weights in half, inside a context that would make products so."""
    made = STORE.positions()
    halved = PositionBatch(made.targets, made.weights.bfloat16(), made.users, made.steps)
    single = PositionBatch(made.targets, made.weights.float(), made.users, made.steps)
    methods = [WeightedMethod(Soft(), 1.0), WeightedMethod(Listwise(), 1.0)]
    plain = on_scores(_mixed(methods=methods), SCORES.float(), single)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = on_scores(_mixed(methods=methods), SCORES.float(), halved)
    assert torch.equal(mixed.total, plain.total)


def _look(lesson):
    return look(SCORES, lesson.wanted)
