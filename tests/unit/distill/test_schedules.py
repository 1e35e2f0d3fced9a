from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from teaching import Rows

from stillhouse.distill.schedules import ByConfidence, Curve, nearest


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_curve_goes_from_its_start_to_its_end_and_stays(kind):
    curve = Curve(0.2, 0.8, until=0.5, kind=kind)
    values = [curve.at(place / 100) for place in range(101)]
    assert values[0] == 0.2
    assert values[25] == pytest.approx(0.5)
    assert values[50:] == [0.8] * 51
    assert all(after >= before for before, after in pairwise(values))


def test_a_constant_is_flat():
    assert Curve.constant(0.3).flat
    assert [Curve.constant(0.3).at(progress) for progress in (0.0, 0.7)] == [0.3, 0.3]
    assert not Curve(0.3, 0.4).flat


def test_a_tie_between_stored_temperatures_goes_to_the_lower():
    assert [nearest(value, (4.0, 1.0, 2.0)) for value in (0.1, 1.5, 1.6, 9.0)] == [1.0, 1.0, 2.0, 4.0]


def test_confidence_is_one_less_the_entropy_over_that_of_an_even_choice():
    rows = Rows.drawn(k=14)  # no tail: the entropy is exact
    teacher = rows.teacher()
    for row in range(4):
        p = torch.from_numpy(rows.scores[row, rows.unseen(row)]).softmax(0)
        expected = 1.0 + (p * p.log()).sum() / torch.tensor(len(p)).log()
        assert teacher.confidence[row].item() == pytest.approx(expected.item(), rel=1e-6)
    assert teacher.confidence[5].item() == 1.0  # nothing to choose from
    even = Rows(rows.scores * 0.0, rows.seen, k=3).teacher()
    torch.testing.assert_close(even.confidence[:5], torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_an_adaptive_weight_lies_between_its_two_by_confidence():
    teacher = Rows.drawn().teacher()
    found = ByConfidence(sure=0.1, unsure=0.9).at(teacher)
    torch.testing.assert_close(found, 0.9 - 0.8 * teacher.confidence)
