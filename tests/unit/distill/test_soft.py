"""The soft loss against an independent NumPy form, finite differences, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stillhouse.distill import soft
from stillhouse.distill.teacher_rows import TeacherRows

N, ITEMS, K, S = 6, 14, 4, 3


def _log_softmax(values: np.ndarray) -> np.ndarray:
    top = values.max()
    return values - top - np.log(np.exp(values - top).sum())


def _seen(rng: np.random.Generator, rows: int) -> list[np.ndarray]:
    return [rng.permutation(np.arange(1, ITEMS + 1))[: rng.integers(1, 5)] for _ in range(rows)]


def teacher_rows(
    scores: np.ndarray, seen: list[np.ndarray], temperature: float, k: int = K, samples: int = S, seed: int = 0
) -> TeacherRows:
    """Cut a teacher's scores (float64 [N, ITEMS + 1]) by a plain loop, with uniform draws from the tail."""
    rng = np.random.default_rng(seed)
    rows, n = [], len(scores)
    for row in range(n):
        left = np.array([item for item in range(1, scores.shape[1]) if item not in seen[row]])
        order = left[np.argsort(-scores[row, left])]
        head, tail = order[:k], order[k:]
        pad = k - len(head)
        drawn = rng.choice(tail, samples) if len(tail) else np.zeros(samples, int)
        rows.append(
            (
                np.pad(head, (0, pad)),
                np.pad(scores[row, head], (0, pad), constant_values=-np.inf),
                np.log(np.exp(scores[row, tail] / temperature).sum()) if len(tail) else -np.inf,
                drawn,
                scores[row, drawn] if len(tail) else np.full(samples, -np.inf),
                np.full(samples, -np.log(max(len(tail), 1))),
                np.float64(len(left)),
            )
        )
    names = ("items", "scores", "tail_lse", "tail_items", "tail_scores", "tail_logq", "unseen")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return TeacherRows(temperature, **{name: torch.from_numpy(np.stack(column)) for name, column in columns})


def soft_loss(scores: torch.Tensor, teacher: TeacherRows, seen: list[np.ndarray]) -> torch.Tensor:
    rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    pairs = (torch.from_numpy(rows), torch.from_numpy(np.concatenate(seen)))
    return soft.soft_loss(scores, teacher, pairs)


def reference(student: np.ndarray, teacher: TeacherRows, seen: list[np.ndarray], temperature: float) -> np.ndarray:
    """The loss of the docstring, one position after another, in plain NumPy."""
    losses = []
    for row in range(len(student)):
        left = [item for item in range(1, student.shape[1]) if item not in seen[row]]
        q = np.zeros(student.shape[1])
        q[left] = np.exp(_log_softmax(student[row, left] / temperature))
        real = teacher.items[row].numpy() > 0
        head = teacher.items[row].numpy()[real]
        weights = np.exp(np.append(teacher.scores[row].numpy()[real] / temperature, teacher.tail_lse[row].item()))
        p = weights / weights.sum()
        loss = (p[:-1] * np.log(p[:-1] / q[head])).sum()
        rest = 1.0 - q[head].sum()
        if p[-1] > 0:
            loss += p[-1] * np.log(p[-1] / rest)
            drawn = teacher.tail_items[row].numpy()
            a = np.exp(teacher.tail_scores[row].numpy() / temperature - teacher.tail_lse[row].item())
            b = q[drawn] / rest
            g = np.exp(teacher.tail_logq[row].numpy())
            loss += p[-1] * np.mean((a * np.log(a / b) - a + b) / g) if len(drawn) else 0.0
        losses.append(loss)
    return np.array(losses)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    return rng.normal(0, 2, (N, ITEMS + 1)), rng.normal(0, 2, (N, ITEMS + 1)), _seen(rng, N)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("k", "samples"), [(K, S), (1, 1), (K, 0), (12, S), (ITEMS, S)])
def test_soft_loss_equals_an_independent_numpy_form(case, temperature, k, samples):
    student, scores, seen = case
    teacher = teacher_rows(scores, seen, temperature, k, samples)
    found = soft_loss(torch.from_numpy(student), teacher, seen)
    np.testing.assert_allclose(found.numpy(), reference(student, teacher, seen, temperature), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("k", "samples"), [(K, S), (K, 0), (12, S)])
def test_soft_gradient_equals_finite_differences(case, temperature, k, samples):
    student, scores, seen = case
    teacher = teacher_rows(scores, seen, temperature, k, samples)
    inputs = torch.from_numpy(student).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: soft_loss(values, teacher, seen), (inputs,))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_loss_and_its_gradient_are_zero_when_student_equals_teacher_up_to_a_constant(case, temperature):
    _, scores, seen = case
    teacher = teacher_rows(scores, seen, temperature)
    student = torch.from_numpy(scores + 3.0).requires_grad_()
    loss = soft_loss(student, teacher, seen)
    loss.sum().backward()
    assert loss.detach().abs().max() < 1e-12
    assert student.grad.abs().max() < 1e-12


def test_what_was_seen_and_column_zero_have_no_say(case):
    student, scores, seen = case
    teacher = teacher_rows(scores, seen, 1.0)
    loud = student.copy()
    loud[:, 0] = 60.0
    for row in range(N):
        loud[row, seen[row]] = 60.0
    loud, quiet = torch.from_numpy(loud).requires_grad_(), torch.from_numpy(student).requires_grad_()
    losses = [soft_loss(values, teacher, seen) for values in (loud, quiet)]
    for loss in losses:
        loss.sum().backward()
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loud.grad, quiet.grad, rtol=1e-12, atol=1e-12)
    assert loud.grad[:, 0].abs().max() == 0.0
    assert all(loud.grad[row, seen[row]].abs().max() == 0.0 for row in range(N))


def test_column_zero_of_minus_infinity_makes_no_nan(case):
    student, scores, seen = case
    student[:, 0] = -np.inf
    inputs = torch.from_numpy(student).requires_grad_()
    soft_loss(inputs, teacher_rows(scores, seen, 2.0, 12), seen).sum().backward()
    assert inputs.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_the_tail_estimate_is_unbiased(temperature):
    """Every tail item drawn once and weighted by its probability gives the whole divergence, exactly."""
    rng = np.random.default_rng(8)
    student, scores = rng.normal(0, 2, (1, ITEMS + 1)), rng.normal(0, 2, (1, ITEMS + 1))
    seen = [np.array([2, 9])]
    base = teacher_rows(scores, seen, temperature, K, 1)
    left = np.array([item for item in range(1, ITEMS + 1) if item not in seen[0]])
    tail = [item for item in left if item not in base.items[0].tolist()]
    odds = rng.dirichlet(np.ones(len(tail)))
    mean = 0.0
    for item, chance in zip(tail, odds, strict=True):
        drawn = replace(
            base,
            tail_items=torch.tensor([[item]]),
            tail_scores=torch.tensor([[scores[0, item]]]),
            tail_logq=torch.tensor([[np.log(chance)]]),
        )
        mean += chance * soft_loss(torch.from_numpy(student), drawn, seen).item()
    p, q = _log_softmax(scores[0, left] / temperature), _log_softmax(student[0, left] / temperature)
    assert mean == pytest.approx((np.exp(p) * (p - q)).sum(), rel=1e-9)


def test_without_draws_the_loss_is_a_lower_bound_of_the_whole(case):
    student, scores, seen = case
    loss = soft_loss(torch.from_numpy(student), teacher_rows(scores, seen, 1.0, K, 0), seen).numpy()
    for row in range(N):
        left = [item for item in range(1, ITEMS + 1) if item not in seen[row]]
        p, q = _log_softmax(scores[row, left]), _log_softmax(student[row, left])
        assert 0.0 < loss[row] < (np.exp(p) * (p - q)).sum()


def test_a_truncated_teacher_is_not_renormalised(case):
    """A teacher with most of its mass in the tail must not pull the student's mass into the head."""
    _, scores, seen = case
    student = torch.from_numpy(scores).requires_grad_()
    soft_loss(student, teacher_rows(scores, seen, 8.0, 1), seen).sum().backward()
    assert student.grad.abs().max() < 1e-12


def test_the_loss_is_never_negative_and_survives_far_apart_scores():
    rng = np.random.default_rng(11)
    for scale in (0.1, 10.0, 300.0):
        student = (rng.normal(0, scale, (50, ITEMS + 1))).astype(np.float32)
        scores, seen = rng.normal(0, 3, (50, ITEMS + 1)), _seen(rng, 50)
        teacher = teacher_rows(scores, seen, 1.0)
        reals = ("scores", "tail_lse", "tail_scores", "tail_logq")
        teacher = replace(teacher, **{name: getattr(teacher, name).float() for name in reals})
        inputs = torch.from_numpy(student).requires_grad_()
        loss = soft_loss(inputs, teacher, seen)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert loss.min() >= -1e-6
        assert inputs.grad.isfinite().all()
