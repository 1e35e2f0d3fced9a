from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from teaching import Rows

from stillhouse.distill.trust import trust

ROWS = Rows.drawn()
TEACHER, BATCH = ROWS.teacher(), ROWS.positions()  # what came next is the teacher's third choice in rows 0 to 3


def test_everywhere_all_positions_count_the_same():
    assert trust("everywhere", BATCH, TEACHER).tolist() == [1.0] * 6


@pytest.mark.parametrize("kind", ["everywhere", "where_right"])
def test_nothing_is_worked_out_of_a_whole_batch_that_trust_does_not_need(kind):
    teacher = ROWS.teacher()
    trust(kind, BATCH, teacher)
    assert "_shares" not in vars(teacher)


def test_where_right_only_positions_count_whose_target_is_high_on_the_teachers_list():
    assert trust("where_right", BATCH, TEACHER, within=3)[:4].tolist() == [1.0] * 4
    assert trust("where_right", BATCH, TEACHER, within=2)[:4].tolist() == [0.0] * 4
    other = replace(BATCH, targets=TEACHER.items[:, 0].clamp_min(1))
    assert trust("where_right", other, TEACHER, within=1)[:4].tolist() == [1.0] * 4
    assert trust("where_right", BATCH, TEACHER)[5].item() == 0.0  # padding is no item


def test_by_confidence_a_position_counts_as_the_teacher_is_sure():
    assert torch.equal(trust("by_confidence", BATCH, TEACHER), TEACHER.confidence)
