"""Losses on fixed inputs, worked out by hand.

Four items; the person has seen item 4. The teacher's raw scores of items 1, 2, 3
are log 4, log 2, log 2, so that at temperature 1 its probabilities over the unseen
items are 1/2, 1/4, 1/4; at temperature 2 the weights are 2, sqrt 2, sqrt 2.
The student scores all items alike: 1/3 each of the unseen, 1/4 each of all four.
"""

from __future__ import annotations

import math

import pytest
import torch

from stillhouse.distill.hard import hard_loss
from stillhouse.distill.soft import TeacherRows, soft_loss

LOG2 = math.log(2.0)
STUDENT = torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def _teacher(tail_lse: float, draws: list[tuple[int, float, float]], head: list[tuple[int, float]]) -> TeacherRows:
    def double(values: list[float]) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64).reshape(1, -1)

    return TeacherRows(
        items=torch.tensor([[item for item, _ in head]]),
        scores=double([score for _, score in head]),
        tail_lse=torch.tensor([tail_lse], dtype=torch.float64),
        tail_items=torch.tensor([[item for item, _, _ in draws]], dtype=torch.int64).reshape(1, -1),
        tail_scores=double([score for _, score, _ in draws]),
        tail_logq=double([logq for _, _, logq in draws]),
        seen_rows=torch.tensor([0]),
        seen_items=torch.tensor([4]),
    )


def test_hard_loss_of_four_equal_scores_is_log_four():
    loss = hard_loss(STUDENT, torch.tensor([2]), torch.tensor([0.7], dtype=torch.float64))
    assert loss.item() == pytest.approx(math.log(4.0), rel=1e-6)


def test_soft_loss_over_the_whole_head():
    # 1/2 log(3/2) + 2 * 1/4 log(3/4) = log 3 - 3/2 log 2
    teacher = _teacher(-math.inf, [], [(1, 2 * LOG2), (2, LOG2), (3, LOG2)])
    assert soft_loss(STUDENT, teacher, 1.0).item() == pytest.approx(math.log(3.0) - 1.5 * LOG2, rel=1e-12)
    assert soft_loss(STUDENT, teacher, 1.0).item() == pytest.approx(0.05889151782819174, rel=1e-12)


def test_soft_loss_of_one_item_and_a_bucket():
    # 1/2 log((1/2)/(1/3)) + 1/2 log((1/2)/(2/3)) = 1/2 log(9/8)
    teacher = _teacher(2 * LOG2, [], [(1, 2 * LOG2)])
    assert soft_loss(STUDENT, teacher, 1.0).item() == pytest.approx(0.5 * math.log(9 / 8), rel=1e-12)
    assert soft_loss(STUDENT, teacher, 1.0).item() == pytest.approx(0.05889151782819174, rel=1e-12)


def test_soft_loss_at_temperature_two():
    # Teacher weights 2 : sqrt 2 : sqrt 2, so p = 1 / (1 + sqrt 2) and 1 - p for the bucket; student 1/3 and 2/3.
    p = 1 / (1 + math.sqrt(2))
    expected = p * math.log(3 * p) + (1 - p) * math.log(1.5 * (1 - p))
    teacher = _teacher(math.log(2 * math.sqrt(2)), [], [(1, 2 * LOG2)])
    assert soft_loss(STUDENT, teacher, 2.0).item() == pytest.approx(expected, rel=1e-12)
    assert soft_loss(STUDENT, teacher, 2.0).item() == pytest.approx(0.01422059282289484, rel=1e-9)


def test_draws_add_what_the_bucket_hides():
    # Head: item 2 with 1/4. Tail: items 1 and 3 with 2/3 and 1/3 of its mass 3/4; the student gives 1/2 each.
    # One draw of item 1, drawn with probability 1/2: (2/3 log(4/3) - 2/3 + 1/2) / (1/2), times 3/4.
    teacher = _teacher(math.log(6.0), [(1, 2 * LOG2, -LOG2)], [(2, LOG2)])
    bucket = 0.25 * math.log(0.75) + 0.75 * math.log(9 / 8)
    inside = 0.75 * 2 * (2 / 3 * math.log(4 / 3) - 1 / 6)
    assert soft_loss(STUDENT, teacher, 1.0).item() == pytest.approx(bucket + inside, rel=1e-12)


def test_the_gradient_is_student_less_teacher_over_temperature():
    teacher = _teacher(2 * LOG2, [], [(1, 2 * LOG2)])
    student = STUDENT.clone().requires_grad_()
    soft_loss(student, teacher, 1.0).sum().backward()
    # Item 1: 1/3 - 1/2. Items 2 and 3 share the bucket's 2/3 - 1/2. Item 4 was seen.
    expected = torch.tensor([[0.0, -1 / 6, 1 / 12, 1 / 12, 0.0]], dtype=torch.float64)
    assert torch.allclose(student.grad, expected, atol=1e-12)
