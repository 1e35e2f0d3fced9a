"""Losses on fixed inputs, worked out by hand.

Four items; the person has seen item 4. The teacher's raw scores of items 1, 2, 3
are log 4, log 2, log 2, so that at temperature 1 its probabilities over the unseen
items are 1/2, 1/4, 1/4; at temperature 2 the weights are 2, sqrt 2, sqrt 2.
The student scores all items alike: 1/3 each of the unseen, 1/4 each of all four.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from teaching import Rows

from stillhouse.distill import soft
from stillhouse.distill.features import Features
from stillhouse.distill.hard import hard_loss
from stillhouse.distill.listwise import Listwise
from stillhouse.distill.method import Method
from stillhouse.distill.pseudo_labels import PseudoLabels
from stillhouse.distill.rank_sampling import RankSampling
from stillhouse.distill.regression import Regression
from stillhouse.distill.rejuvenated import Rejuvenated
from stillhouse.distill.relations import Relations
from stillhouse.distill.teacher_rows import TeacherRows

LOG2 = math.log(2.0)
STUDENT = torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def _teacher(
    tail_lse: float, draws: list[tuple[int, float, float]], head: list[tuple[int, float]], temperature: float = 1.0
) -> TeacherRows:
    def double(values: list[float]) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64).reshape(1, -1)

    return TeacherRows(
        temperature,
        items=torch.tensor([[item for item, _ in head]]),
        scores=double([score for _, score in head]),
        tail_lse=torch.tensor([tail_lse], dtype=torch.float64),
        tail_items=torch.tensor([[item for item, _, _ in draws]], dtype=torch.int64).reshape(1, -1),
        tail_scores=double([score for _, score, _ in draws]),
        tail_logq=double([logq for _, _, logq in draws]),
        unseen=torch.tensor([3.0], dtype=torch.float64),
    )


def soft_loss(student: torch.Tensor, teacher: TeacherRows) -> torch.Tensor:
    return soft.soft_loss(student, teacher, (torch.tensor([0]), torch.tensor([4])))


def test_hard_loss_of_four_equal_scores_is_log_four():
    loss = hard_loss(STUDENT, torch.tensor([2]), torch.tensor([0.7], dtype=torch.float64))
    assert loss.item() == pytest.approx(math.log(4.0), rel=1e-6)


def test_soft_loss_over_the_whole_head():
    # 1/2 log(3/2) + 2 * 1/4 log(3/4) = log 3 - 3/2 log 2
    teacher = _teacher(-math.inf, [], [(1, 2 * LOG2), (2, LOG2), (3, LOG2)])
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(math.log(3.0) - 1.5 * LOG2, rel=1e-12)
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(0.05889151782819174, rel=1e-12)


def test_soft_loss_of_one_item_and_a_bucket():
    # 1/2 log((1/2)/(1/3)) + 1/2 log((1/2)/(2/3)) = 1/2 log(9/8)
    teacher = _teacher(2 * LOG2, [], [(1, 2 * LOG2)])
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(0.5 * math.log(9 / 8), rel=1e-12)
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(0.05889151782819174, rel=1e-12)


def test_soft_loss_at_temperature_two():
    # Teacher weights 2 : sqrt 2 : sqrt 2, so p = 1 / (1 + sqrt 2) and 1 - p for the bucket; student 1/3 and 2/3.
    p = 1 / (1 + math.sqrt(2))
    expected = p * math.log(3 * p) + (1 - p) * math.log(1.5 * (1 - p))
    teacher = _teacher(math.log(2 * math.sqrt(2)), [], [(1, 2 * LOG2)], temperature=2.0)
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(0.01422059282289484, rel=1e-9)


def test_draws_add_what_the_bucket_hides():
    # Head: item 2 with 1/4. Tail: items 1 and 3 with 2/3 and 1/3 of its mass 3/4; the student gives 1/2 each.
    # One draw of item 1, drawn with probability 1/2: (2/3 log(4/3) - 2/3 + 1/2) / (1/2), times 3/4.
    teacher = _teacher(math.log(6.0), [(1, 2 * LOG2, -LOG2)], [(2, LOG2)])
    bucket = 0.25 * math.log(0.75) + 0.75 * math.log(9 / 8)
    inside = 0.75 * 2 * (2 / 3 * math.log(4 / 3) - 1 / 6)
    assert soft_loss(STUDENT, teacher).item() == pytest.approx(bucket + inside, rel=1e-12)


def test_the_gradient_is_student_less_teacher_over_temperature():
    teacher = _teacher(2 * LOG2, [], [(1, 2 * LOG2)])
    student = STUDENT.clone().requires_grad_()
    soft_loss(student, teacher).sum().backward()
    # Item 1: 1/3 - 1/2. Items 2 and 3 share the bucket's 2/3 - 1/2. Item 4 was seen.
    expected = torch.tensor([[0.0, -1 / 6, 1 / 12, 1 / 12, 0.0]], dtype=torch.float64)
    assert torch.allclose(student.grad, expected, atol=1e-12)


#: The teacher of this file's first lines as a table; the store holds all three unseen items.
ROWS = Rows(np.array([[0.0, 2 * LOG2, LOG2, LOG2, 9.0]]), [np.array([4])], k=3, samples=0)
P = math.exp(3 / math.sqrt(2)) / (math.exp(3 / math.sqrt(2)) + 2)

BY_HAND: dict[str, tuple[Method, float]] = {
    # Scores 2, 1, 1 times log 2 have mean 4/3 and deviation sqrt(2)/3 of it: sqrt 2, -1/sqrt 2, -1/sqrt 2 standardised.
    "soft, standardised": (
        soft.Soft(standardise=True),
        P * math.log(P) + (1 - P) * math.log((1 - P) / 2) + math.log(3.0),
    ),
    # Against all four items, which the student scores alike.
    "one pseudo-label": (PseudoLabels(), math.log(4.0)),
    "two pseudo-labels": (PseudoLabels(2, decay=1.0), math.log(4.0)),
    # Centred: 2/3, -1/3, -1/3 of log 2 against 0; squares 4/9, 1/9, 1/9.
    "regression": (Regression(), 2 / 9 * LOG2**2),
    "regression, standardised": (Regression(standardise=True), 1.0),
    # Odds 1, 1/2, 1/4; asked 1/2, 1/4, 1/4 where the student says 1/3: log 3 - (1 - asked) log 2 each.
    "rank sampling": (RankSampling(decay=1 / LOG2), math.log(3.0) - (4 / 7 * 1 / 2 + 3 / 7 * 3 / 4) * LOG2),
    # One of three, one of two, one of one.
    "listwise": (Listwise(), math.log(6.0) / 3),
    # Both sets are the three unseen items.
    "rejuvenated": (Rejuvenated(3), math.log(3.0)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_method_on_paper(name):
    method, expected = BY_HAND[name]
    found = method.loss(ROWS.said(method, STUDENT)).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_features_on_paper():
    # The projection is made to double: (2, 4) against (0, 1) is 4 + 9 over two.
    method = Features(2, 2)
    method.weights.load_state_dict({"weight": 2.0 * torch.eye(2), "bias": torch.zeros(2)})
    state = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    said = ROWS.said(method, STUDENT, hidden=state, theirs=np.array([[0.0, 1.0]]))
    assert method.loss(said).item() == pytest.approx(6.5, rel=1e-6)


def test_relations_on_paper():
    # A right angle of legs 1 against three points in a row. Over their means the distances are 3 / (2 + sqrt 2)
    # (twice) and sqrt 2 times that, against 3/4, 3/4 and 3/2. Cosines at the middle point: 0 against -1 (a
    # difference of 1: 1/2, twice among 27), at the others 1 / sqrt 2 against 1 (twice each); to itself always 1.
    rows = Rows(np.zeros((3, 5)), [np.array([4])] * 3, k=1)
    states = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher = rows.teacher(1.0, np.array([[1.0], [0.0], [2.0]]))
    leg = 3 / (2 + math.sqrt(2))
    distance = 2 * (2 * (leg - 0.75) ** 2 + (math.sqrt(2) * leg - 1.5) ** 2) / 2 / 9
    angle = (2 * 0.5 + 4 * (1 - 1 / math.sqrt(2)) ** 2 / 2) / 27
    held = torch.ones(3, dtype=torch.bool)
    for weights, expected in [((1.0, 0.0), distance), ((0.0, 1.0), angle), ((1.0, 2.0), distance + 2 * angle)]:
        found = Relations(distance=weights[0], angle=weights[1]).loss(states, teacher, held)
        assert found.item() == pytest.approx(expected, rel=1e-6)
