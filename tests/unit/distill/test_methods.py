"""Each method against an independent form, position by position in plain NumPy, and against finite differences."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from teaching import Rows

from stillhouse.distill.features import Features
from stillhouse.distill.listwise import Listwise
from stillhouse.distill.method import Method
from stillhouse.distill.pseudo_labels import PseudoLabels
from stillhouse.distill.rank_sampling import RankSampling
from stillhouse.distill.regression import Regression
from stillhouse.distill.rejuvenated import Rejuvenated
from stillhouse.distill.soft import Soft
from stillhouse.distill.teacher_rows import TeacherRows

ROWS = Rows.drawn(positions=6, items=14)
SMALL = Rows.drawn(positions=5, items=8, seed=2, k=3, samples=2)
STUDENT = np.random.default_rng(9).normal(0.0, 2.0, (6, 15))


def log_softmax(values):
    top = values.max()
    return values - top - np.log(np.exp(values - top).sum())


def standard(values):
    apart = values - values.mean()
    return apart / np.sqrt((apart**2).mean() + 1e-8)


def soft_standardised(rows, row, z, t, own):
    head = rows.head(row)
    theirs, ours = (log_softmax(standard(side[head]) / t) for side in (rows.scores[row], z))
    return (np.exp(theirs) * (theirs - ours)).sum()


def pseudo(k, weights):
    def loss(rows, row, z, t, own):
        labels = rows.head(row)[:k]
        share = weights[: len(labels)] / weights[: len(labels)].sum()
        return -(share * log_softmax(z[1:])[labels - 1]).sum()

    return loss


def regression(draws, scaled):
    def loss(rows, row, z, t, own):
        items = rows.head(row)
        if draws and len(rows.tail(row)):
            items = np.concatenate([items, rows.batch(t).tail_items[row]])
        return ((scaled(z[items]) - scaled(rows.scores[row, items])) ** 2).mean()

    return loss


def rank_sampling(spread, shift):
    def loss(rows, row, z, t, own):
        left, head = rows.unseen(row), rows.head(row)
        p, q = (dict(zip(left, np.exp(log_softmax(side[left] / t)), strict=True)) for side in (rows.scores[row], z))
        odds = np.exp(-np.arange(len(head)) / 3.0)
        total = 0.0
        for item, share in zip(head, odds / odds.sum(), strict=True):
            asked = 1 / (1 + np.exp(-(np.log(p[item] / (1 - p[item])) + shift) / spread))
            total -= share * (asked * np.log(q[item]) + (1 - asked) * np.log(1 - q[item]))
        return total

    return loss


def listwise(rows, row, z, t, own):
    order, rest = rows.head(row), rows.tail(row)
    left = [np.exp(z[np.concatenate([order[m:], rest])] / t).sum() for m in range(len(order))]
    return np.mean([np.log(below) - z[item] / t for item, below in zip(order, left, strict=True)])


def rejuvenated(k):
    def loss(rows, row, z, t, own):
        left, known = rows.unseen(row), rows.head(row)
        theirs, mine = known[:k], left[np.argsort(-z[left])][: 2 * k]
        tail = rows.tail(row)
        raw = rows.scores[row] - rows.scores[row, known].max()
        even = np.log(np.exp(raw[tail] / t).mean()) if len(tail) else -np.inf
        logit = {item: raw[item] / t if item in known else even for item in left}
        below = [min(50, sum(item in theirs for item in mine[place:])) for place in range(len(mine))]
        keys = (np.array(below) + 1) / 7.0 + own["noise"][row].numpy()[: len(mine)]
        drawn = mine[np.argsort(-keys)[:k]]

        def cross(items):
            p, q = (log_softmax(np.array(side)) for side in ([logit[i] for i in items], [z[i] / t for i in items]))
            return -(np.exp(p) * q).sum()

        on_the_way = [*drawn, *(item for item in theirs if item not in drawn and item not in mine[:k])]
        far = np.exp(-2.0 * len(set(theirs) & set(drawn)) / len(theirs))
        return (1 - far) * cross(mine[:k]) + far * cross(on_the_way)

    return loss


FORMS = {
    "soft, standardised": (Soft(standardise=True), soft_standardised),
    "one pseudo-label": (PseudoLabels(), pseudo(1, np.ones(1))),
    "three pseudo-labels": (PseudoLabels(3, decay=2.0), pseudo(3, np.exp(-np.arange(3) / 2.0))),
    "regression": (Regression(), regression(True, lambda values: values - values.mean())),
    "regression of the head": (Regression(draws=False), regression(False, lambda values: values - values.mean())),
    "regression, standardised": (Regression(standardise=True), regression(True, standard)),
    "rank sampling": (RankSampling(decay=3.0), rank_sampling(1.0, 0.0)),
    "rank sampling, calibrated": (RankSampling(decay=3.0, spread=2.0, shift=1.0), rank_sampling(2.0, 1.0)),
    "listwise": (Listwise(), listwise),
    "rejuvenated": (Rejuvenated(4, beta=2.0, decay=7.0), rejuvenated(4)),
    "rejuvenated, of shorter lists": (Rejuvenated(2, beta=2.0, decay=7.0), rejuvenated(2)),
}


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", FORMS)
def test_a_method_equals_its_formula_at_every_position(name, temperature):
    method, form = FORMS[name]
    said = ROWS.said(method, torch.from_numpy(STUDENT), temperature)
    found = method.loss(said).numpy()
    # The last position has no unseen item at all: nothing is asked of it.
    expected = [form(ROWS, row, STUDENT[row], temperature, said.own) for row in range(5)] + [0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)  # shares of places are float32


@pytest.mark.parametrize("name", FORMS)
def test_a_methods_gradient_equals_finite_differences(name):
    method = Rejuvenated(3, beta=2.0, decay=7.0) if "rejuvenated" in name else FORMS[name][0]
    student = torch.from_numpy(np.random.default_rng(3).normal(0.0, 2.0, (5, 9))).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: method.loss(SMALL.said(method, scores, 2.0)), (student,))


def least(method: Method, rows: Rows, scores: torch.Tensor, most: float = 1e-9) -> bool:
    """Say whether no small change of ``scores`` lowers the method's loss."""
    scores = scores.clone().requires_grad_()
    method.loss(rows.said(method, scores)).sum().backward()
    return bool(scores.grad.abs().max() < most)


@pytest.mark.parametrize("name", ["soft, standardised", "regression", "regression, standardised", "rank sampling"])
def test_a_student_that_equals_its_teacher_up_to_a_constant_has_nothing_to_learn(name):
    assert least(FORMS[name][0], ROWS, torch.from_numpy(ROWS.scores + 3.0))
    assert not least(FORMS[name][0], ROWS, torch.from_numpy(STUDENT))


@pytest.mark.parametrize("method", [Soft(standardise=True), Regression(standardise=True)], ids=["soft", "regression"])
def test_a_standardised_method_asks_for_no_spread_of_scores(method):
    assert least(method, ROWS, torch.from_numpy(ROWS.scores * 0.2), most=1e-5)


def whole_rows(dtype: torch.dtype) -> tuple[TeacherRows, torch.Tensor]:
    """Return 40 rows without padding, one of them of equal scores, and a student's scores of their items."""
    rng = np.random.default_rng(4)
    rows = Rows(rng.normal(0.0, 3.0, (40, 31)), [rng.integers(1, 31, 3) for _ in range(40)], k=20)
    rows.scores[7] = 1.0
    teacher = TeacherRows.of(rows.batch(2.0), torch.device("cpu"), dtype, 30, rows)
    student = torch.from_numpy(rng.normal(5.0, 2.0, (40, 20))).to(dtype)
    student[8] = 0.5
    return teacher, student


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardising_whole_rows_equals_the_form_that_minds_padding(dtype):
    teacher, student = whole_rows(dtype)
    assert teacher.whole
    assert teacher.part(3, 9).whole
    found = []
    for form in (teacher, replace(teacher, whole=False)):
        head = student.clone().requires_grad_()
        loss = Soft(standardise=True).loss(SimpleNamespace(head=head, teacher=form))
        loss.dot(torch.arange(40.0, dtype=dtype)).backward()
        found.append((loss.detach(), head.grad))
    for ours, theirs in zip(*found, strict=True):
        # Relative to a row's largest: what cancels in a float32 has no digits of its own.
        size = theirs.abs().reshape(40, -1).amax(dim=1).clamp_min(1e-3)
        assert ((ours - theirs).abs().reshape(40, -1).amax(dim=1) / size).max() < 1e-5


def test_a_gradient_of_whole_rows_equals_finite_differences():
    teacher, student = whole_rows(torch.float64)
    method, student = Soft(standardise=True), student[:5].requires_grad_()
    part = teacher.part(0, 5)
    assert torch.autograd.gradcheck(lambda head: method.loss(SimpleNamespace(head=head, teacher=part)), (student,))


def test_rows_with_one_place_of_padding_are_not_whole():
    assert not ROWS.teacher().whole


@pytest.mark.parametrize("method", [RankSampling(samples=2, decay=1.0), Listwise(samples=2, decay=1.0)])
def test_drawn_places_are_the_teachers_first_more_often_and_none_is_padding(method):
    teacher, batch = ROWS.teacher(), ROWS.positions()
    counts = torch.zeros(ROWS.k)
    for _ in range(60):
        own = method.prepare(batch, teacher)
        chosen = own["share" if "share" in own else "chosen"] > 0
        assert not (chosen & teacher.padding).any()
        assert chosen[:4].sum(dim=1).eq(2).all()
        counts += chosen[:4].sum(dim=0)
    assert (counts.diff() < 0).all()


def test_a_draw_that_counts_nothing_is_not_compared():
    rows = Rows.drawn(samples=2)
    batch = rows.batch(1.0)
    batch.tail_logq[:, 1] = np.inf
    batch.tail_items[:, 1], batch.tail_scores[:, 1] = batch.tail_items[:, 0], batch.tail_scores[:, 0]
    half = rows.batch(1.0)
    alone = type(half)(**{**vars(half), **{n: vars(half)[n][:, :1] for n in vars(half) if n.startswith("tail_i")}})
    for name in ("tail_scores", "tail_logq"):
        vars(alone)[name] = vars(half)[name][:, :1]
    found = []
    for one in (batch, alone):
        cut = Rows(rows.scores, rows.seen, samples=one.tail_items.shape[1])
        object.__setattr__(cut, "batch", lambda temperature, seed=0, one=one: one)
        found.append(Regression().loss(cut.said(Regression(), torch.from_numpy(STUDENT))))
    torch.testing.assert_close(*found)


def test_a_projected_state_is_compared_with_the_teachers():
    generator = torch.Generator().manual_seed(1)
    ours = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    theirs = torch.randn(6, 5, dtype=torch.float64, generator=generator).numpy()
    for cosine in (False, True):
        method = Features(3, 5, cosine=cosine, seed=4)
        said = ROWS.said(method, torch.from_numpy(STUDENT), hidden=ours, theirs=theirs)
        weight, bias = (value.detach().double().numpy() for value in method.weights.parameters())
        seen = ours.numpy() @ weight.T + bias
        lengths = np.linalg.norm(seen, axis=1) * np.linalg.norm(theirs, axis=1)
        expected = 1 - (seen * theirs).sum(1) / lengths if cosine else ((seen - theirs) ** 2).mean(1)
        np.testing.assert_allclose(method.loss(said).detach().numpy(), expected, rtol=1e-6)


def test_a_projection_learns_too_and_its_start_is_drawn_from_its_seed():
    method = Features(3, 5, seed=4)
    assert torch.equal(method.weights.weight, Features(3, 5, seed=4).weights.weight)
    assert not torch.equal(method.weights.weight, Features(3, 5, seed=5).weights.weight)
    theirs = np.random.default_rng(0).normal(size=(6, 5))
    states = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    student = torch.from_numpy(STUDENT)

    def loss(hidden):
        return method.loss(ROWS.said(method, student, hidden=hidden, theirs=theirs))

    assert torch.autograd.gradcheck(loss, (states,))
    loss(states).sum().backward()
    apart = method.weights(states.detach().float()).double().detach() - torch.from_numpy(theirs)
    torch.testing.assert_close(
        method.weights.weight.grad.double(), 2 / 5 * apart.T @ states.detach(), rtol=1e-5, atol=1e-6
    )
