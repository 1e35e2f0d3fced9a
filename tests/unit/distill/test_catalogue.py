"""What a look at the catalogue answers beside what `tests/unit/train/test_softmax.py` holds to its formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from teaching import Rows

from stillhouse.distill.catalogue import look
from stillhouse.distill.protocol import Wanted
from stillhouse.distill.seen import Seen

ROWS = Rows.drawn()
SCORES = torch.from_numpy(np.random.default_rng(4).normal(0.0, 2.0, (6, 15)))


def wanted(**more):
    teacher = ROWS.teacher()
    items = torch.cat([ROWS.positions().targets.unsqueeze(1), teacher.items], dim=1)
    return Wanted(items=items, head=teacher.items, seen=ROWS.pairs(), temperatures=(1.0,), **more)


def answered(scores, asked):
    """Return all that is answered, and the gradient of a mixture of it."""
    inputs = scores.clone().requires_grad_()
    answer = look(inputs, asked)
    values = [answer.log_unseen[t] for t in asked.temperatures] + [answer.log_total, answer.scores.nan_to_num(neginf=0)]
    if answer.top_scores is not None:
        values.append(answer.top_scores.nan_to_num(neginf=0))
    tails = [answer.log_tail[t].nan_to_num(neginf=0) for t in asked.temperatures]
    mixed = sum((place + 1.0) * (value * value).sum() for place, value in enumerate([*values, *tails]))
    mixed.backward()
    return mixed.detach(), inputs.grad


@pytest.mark.parametrize("temperatures", [(1.0,), (2.0,), (1.0, 2.0)])
@pytest.mark.parametrize("total", [True, False])
def test_runs_and_pairs_of_what_was_seen_and_a_head_among_the_items_give_the_same(temperatures, total):
    asked = replace(wanted(), temperatures=temperatures, total=total)
    rows, items = ROWS.pairs()
    counts = torch.bincount(rows, minlength=6)
    runs = Seen(items, counts.cumsum(0) - counts, counts)
    plain = answered(SCORES, asked)
    for other in (replace(asked, seen=runs), replace(asked, head_at=1), replace(asked, seen=runs, head_at=1)):
        for found, expected in zip(answered(SCORES, other), plain, strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_top_is_the_students_best_unseen_items_in_order(total, temperature):
    answer = look(SCORES, replace(wanted(top=20, total=total), temperatures=(temperature,)))
    for row in range(6):
        left = ROWS.unseen(row)
        best = left[np.argsort(-SCORES[row, left].numpy())]
        assert answer.top_items[row, : len(left)].tolist() == best.tolist()
        torch.testing.assert_close(answer.top_scores[row, : len(left)], SCORES[row, best])
        assert (answer.top_items[row, len(left) :] == 0).all()
        assert torch.isneginf(answer.top_scores[row, len(left) :]).all()


def test_the_gradient_of_the_top_goes_back_to_its_items_alone():
    inputs = SCORES.clone().requires_grad_()
    answer = look(inputs, wanted(top=2))
    answer.top_scores[:4].sum().backward()
    expected = torch.zeros_like(SCORES).scatter_(1, answer.top_items, 1.0)
    expected[4:] = 0.0
    torch.testing.assert_close(inputs.grad, expected)


def test_padding_is_never_the_best_and_never_far_from_it():
    """Were column 0 to count, scores far below it would all come to nothing."""
    low = SCORES - 500.0
    low[:, 0] = 0.0
    answer = look(low, wanted())
    torch.testing.assert_close(answer.log_total, SCORES[:, 1:].logsumexp(1) - 500.0)
