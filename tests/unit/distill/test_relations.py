"""Relational matching, against loops over pairs and triples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from teaching import Rows

from stillhouse.distill.relations import Relations, angles, distances, gram

VECTORS = np.random.default_rng(0).normal(size=(5, 3))
HELD = torch.ones(6, dtype=torch.bool)


def pairs_by_loops(vectors):
    apart = np.array([[np.linalg.norm(a - b) for b in vectors] for a in vectors])
    return apart / apart[~np.eye(len(vectors), dtype=bool)].mean()


def triples_by_loops(vectors):
    n = len(vectors)
    found = np.zeros((n, n, n))
    for j in range(n):
        for i in range(n):
            for k in range(n):
                if j not in (i, k):
                    a, b = vectors[i] - vectors[j], vectors[k] - vectors[j]
                    found[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return found


def huber(a, b):
    apart = np.abs(a - b)
    return np.where(apart < 1, 0.5 * apart**2, apart - 0.5).mean()


def test_distances_and_angles_are_those_of_plain_loops():
    products = gram(torch.from_numpy(VECTORS))
    np.testing.assert_allclose(distances(products).numpy(), pairs_by_loops(VECTORS), atol=1e-9)
    np.testing.assert_allclose(angles(products).numpy(), triples_by_loops(VECTORS), atol=1e-9)


@pytest.mark.parametrize("with_states", [True, False])
def test_the_loss_is_hubers_between_both_sides_relations(with_states):
    rows = Rows.drawn()
    states = np.random.default_rng(1).normal(size=(6, 3))
    theirs = np.random.default_rng(2).normal(size=(6, 4))
    teacher = rows.teacher(1.0, theirs if with_states else None)
    if not with_states:  # roots of the stored items' probabilities among themselves
        theirs = np.zeros((6, 15))
        for row in range(6):
            weights = np.exp(rows.scores[row, rows.head(row)])
            theirs[row, rows.head(row)] = np.sqrt(weights / weights.sum())
    found = Relations(distance=0.5, angle=3.0).loss(torch.from_numpy(states), teacher, HELD)
    expected = 0.5 * huber(pairs_by_loops(states), pairs_by_loops(theirs))
    expected += 3.0 * huber(triples_by_loops(states), triples_by_loops(theirs))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_gradient_equals_finite_differences():
    teacher = Rows.drawn().teacher()
    states = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss(values):
        torch.manual_seed(0)
        return Relations(positions=4).loss(values, teacher, HELD)

    assert torch.autograd.gradcheck(loss, (states,))


def test_states_that_lie_to_each_other_as_the_teachers_do_have_nothing_to_learn():
    theirs = np.random.default_rng(2).normal(size=(6, 3))
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    teacher = Rows.drawn().teacher(1.0, theirs)
    assert Relations().loss(torch.from_numpy(4.0 * theirs @ turned + 1.0), teacher, HELD).item() < 1e-12


def test_only_positions_that_the_store_holds_are_compared_and_equal_states_make_no_nan():
    teacher = Rows.drawn().teacher()
    held = torch.tensor([True, True, False, True, True, False])
    states = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    Relations().loss(states, teacher, held).backward()
    assert states.grad.isfinite().all()
    moved = torch.randn(6, 3, dtype=torch.float64).requires_grad_()
    Relations().loss(moved, teacher, held).backward()
    assert (moved.grad.abs().sum(dim=1) > 0).tolist() == held.tolist()
    assert Relations().loss(moved, teacher, torch.zeros(6, dtype=torch.bool)).item() == 0.0
