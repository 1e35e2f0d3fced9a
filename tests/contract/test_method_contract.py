"""What every way of learning from a teacher must do, whatever it compares."""

from __future__ import annotations

from types import NoneType
from typing import get_args

import numpy as np
import pydantic
import pytest
import torch
from teaching import Remembered, Rows

from stillhouse.distill.catalogue import look
from stillhouse.distill.methods import methods_of
from stillhouse.distill.mixed import MixedObjective
from stillhouse.errors import StoreError
from stillhouse.params.distillation import DistillationSpec, MethodSpec
from stillhouse.train.softmax import sampled_loss

ROWS = Rows.drawn(positions=8, items=14)
THEIRS = np.random.default_rng(2).normal(size=(8, 5))
WIDTH = 3
KINDS = {get_args(spec.model_fields["kind"].annotation)[0]: spec for spec in get_args(get_args(MethodSpec)[0])}
#: Every kind, and those settings that change what a method looks at.
FORMS = [
    (kind, settings)
    for kind, spec in KINDS.items()
    for settings in ({}, {"standardise": True}, {"draws": False})
    if settings.keys() <= spec.model_fields.keys()
]
#: Setting → another value, where doubling it and adding one says nothing or is none of its values.
OTHERS = {"samples": 2, "decay": 1.0, "positions": 3, "k": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=KINDS, name="kind")
def _kind(request):
    return request.param


def objective(method, store=None, alpha=0.0, temperature=1.0):
    """Return what learns from a teacher that is `ROWS`, by one method and not from people."""
    store = store or Remembered(ROWS, hidden=THEIRS)
    spec = DistillationSpec(alpha=alpha, temperature=temperature, methods=[method])
    methods = methods_of(spec, store, WIDTH, seed=1)
    return MixedObjective(store, store, alpha=alpha, temperature=temperature, methods=methods)


def student(seed=3):
    """Return a student's states and item table, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(8, WIDTH, dtype=torch.float64, generator=generator)
    table = torch.randn(15, WIDTH, dtype=torch.float64, generator=generator)
    return states.requires_grad_(), table.requires_grad_()


def taught(one, states, table, bounds=((0, 8),), seed=0):
    """Return the loss and its parts as the loop adds them up: states once, then positions in parts."""
    torch.manual_seed(seed)
    lesson = one.lesson(Remembered(ROWS).positions())
    beside = lesson.beside(states)
    found = [] if beside is None else [beside]
    for start, stop in bounds:
        scores = states[start:stop] @ table.T
        found.append(lesson.loss(look(scores, lesson.wanted.part(start, stop), states[start:stop]), start, stop))
    names = {name for part in found for name in part.parts}
    parts = {name: sum(part.parts[name] for part in found if name in part.parts) for name in names}
    return sum(part.total for part in found), parts


def test_its_part_is_named_and_is_what_is_learnt(kind):
    for temperature in (1.0, 2.0):
        loss, parts = taught(objective({"kind": kind}, temperature=temperature), *student())
        (name,) = parts.keys() - {"hard_loss"}
        assert name.endswith("_loss")
        assert not parts[name].requires_grad
        assert parts[name] > 0
        # Beside the others it counts a power of the temperature.
        assert round(np.log2((loss / parts[name]).item()), 5) in ((0.0,) if temperature == 1.0 else (0.0, 1.0, 2.0))


def test_its_weight_is_what_it_counts(kind):
    once, twice = (taught(objective({"kind": kind, "weight": weight}), *student())[0] for weight in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)


def test_the_last_rows_teacher_is_padding_alone_and_everything_stays_finite(kind):
    assert not Remembered(ROWS).batch(np.array([7]), 1.0).items.any()
    states, table = student()
    loss, _ = taught(objective({"kind": kind}), states, table)
    loss.backward()
    assert loss.isfinite()
    assert states.grad.isfinite().all()
    assert table.grad.isfinite().all()
    assert not table.grad[0].any()


def test_a_position_that_the_store_lacks_counts_nothing(kind):
    store = Remembered(ROWS, hidden=THEIRS, lacks=[1, 4])
    states, table = student()
    loss, _ = taught(objective({"kind": kind}, store), states, table)
    loss.backward()
    moved = states.grad.abs().sum(dim=1) > 0
    assert moved[[1, 4]].tolist() == [False, False]
    assert moved[[0, 2, 3, 5]].all()
    nothing = Remembered(ROWS, hidden=THEIRS, lacks=range(8))
    assert taught(objective({"kind": kind}, nothing), states, table)[0].item() == 0.0


@pytest.mark.parametrize("size", [1, 3])
def test_parts_of_any_size_give_the_same_loss_and_gradient(kind, size):
    one = objective({"kind": kind}, alpha=0.25)
    gradients, losses = [], []
    for bounds in ([(0, 8)], [(start, min(start + size, 8)) for start in range(0, 8, size)]):
        states, table = student()
        loss, parts = taught(one, states, table, bounds)
        weights = [] if one.weights is None else list(one.weights.parameters())
        gradients.append(torch.autograd.grad(loss, [states, table, *weights]))
        losses.append([loss, *(parts[name] for name in sorted(parts))])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("candidates", ["all", "unseen"])
@pytest.mark.parametrize(("kind", "settings"), FORMS, ids=str)
def test_what_it_does_not_ask_for_is_nothing_to_it(kind, settings, candidates, sampled):
    found = []
    for more in (False, True):
        store = Remembered(ROWS, hidden=THEIRS)
        spec = DistillationSpec(alpha=0.25, temperature=1.0, methods=[{"kind": kind, **settings}])
        methods = methods_of(spec, store, WIDTH, seed=1)
        for each in methods if more else ():
            each.method.wants_draws = each.method.wants_unseen = each.method.wants_tail = True
        one = MixedObjective(store, store, alpha=0.25, temperature=1.0, methods=methods, candidates=candidates)
        states, table = student()
        if sampled:
            torch.manual_seed(0)
            said = sampled_loss(states, table, one.lesson(Remembered(ROWS).positions()), 4)
            loss, parts = said.total, said.parts
        else:
            loss, parts = taught(one, states, table)
        found.append([loss, *torch.autograd.grad(loss, [states, table]), *(parts[name] for name in sorted(parts))])
    torch.testing.assert_close(*found)


def test_the_same_step_teaches_the_same(kind):
    one, (states, table) = objective({"kind": kind}), student()
    assert torch.equal(taught(one, states, table)[0], taught(one, states, table)[0])


def test_a_constant_added_to_a_positions_scores_changes_nothing(kind):
    states, table = student()
    lifted = torch.cat([table, torch.ones(15, 1, dtype=torch.float64)], dim=1)
    with torch.no_grad():
        lesson = objective({"kind": kind}).lesson(Remembered(ROWS).positions())
        lesson.beside(states)
        losses = []
        for heights in (torch.zeros(8, 1), torch.linspace(-3.0, 3.0, 8).unsqueeze(1)):
            scores = torch.cat([states, heights.double()], dim=1) @ lifted.T
            losses.append(lesson.loss(look(scores, lesson.wanted, states), 0, 8).total)
    torch.testing.assert_close(*losses)


def test_gradient_steps_make_it_smaller(kind):
    one, (states, table) = objective({"kind": kind}), student()
    weights = [] if one.weights is None else list(one.weights.parameters())
    optimiser = torch.optim.Adam([states, table, *weights], lr=0.05)
    losses = []
    for _ in range(40):
        loss, _ = taught(one, states, table)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_each_of_its_settings_changes_what_is_learnt(kind):
    states, table = student()
    before = taught(objective({"kind": kind}), states, table)[0].item()
    for name, field in KINDS[kind].model_fields.items():
        if name != "kind":
            given = {"samples": 2} if name == "decay" and "samples" in KINDS[kind].model_fields else {}
            given |= {"k": 3} if name == "decay" and kind == "pseudo_labels" else {}
            plain = taught(objective({"kind": kind, **given}), states, table)[0].item() if given else before
            after = taught(objective({"kind": kind, **given, name: another(name, field)}), states, table)[0].item()
            assert after != plain, f"{kind} learns the same whatever {name} is"


def another(name, field):
    """Return another value of a setting than its default."""
    if name in OTHERS:
        return OTHERS[name]
    kinds = set(get_args(field.annotation)) or {field.annotation}
    return (not field.default) if kinds - {NoneType} == {bool} else 2 * field.default + 1


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(pydantic.ValidationError, match="rejuvenated"):
        DistillationSpec(alpha=0.5, temperature=1.0, methods=[{"kind": "none"}])


def test_states_that_the_store_does_not_hold_are_refused_in_one_line():
    with pytest.raises(StoreError, match=r"export_soft_targets.hidden") as error:
        objective({"kind": "features"}, Remembered(ROWS))
    assert "\n" not in str(error.value)
