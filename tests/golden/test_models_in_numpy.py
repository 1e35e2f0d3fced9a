"""Whole models against forms of their own in NumPy, one place after the other, from their papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stillhouse.models.build import build
from stillhouse.models.cross_fitted import CrossFitted
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import (
    BidirectionalSpec,
    CrossFittedSpec,
    EnsembleSpec,
    GruSpec,
    MemberSpec,
    PopularitySpec,
    SequenceSpec,
    TransformerSpec,
)

N_ITEMS, WIDTH, LENGTH, HEADS = 7, 6, 5, 3
HISTORY = [3, 1, 7, 2]
Array = NDArray[np.float64]
Weights = dict[str, Array]


def drawn(spec: SequenceSpec) -> tuple[SequenceModel, Weights]:
    """Return a model in float64 whose weights are all drawn (of fresh ones some are 0 or 1), and they by name."""
    model = build(spec, N_ITEMS).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
        model.items.weight[0] = 0.0
    return model, {name: weight.detach().numpy() for name, weight in model.named_parameters()}


def linear(x: Array, w: Weights, name: str) -> Array:
    return np.asarray(w[f"{name}.weight"] @ x + w[f"{name}.bias"])


def normed(x: Array, w: Weights, name: str) -> Array:
    return np.asarray((x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"])


def sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def gelu(x: Array) -> Array:
    return np.array([value * 0.5 * (1.0 + math.erf(value / math.sqrt(2.0))) for value in x])


def turned(x: Array, place: int) -> Array:
    """Each pair (i, i + d / 2) of a head, as one complex number, turned by place * 10000^(-2 i / d)."""
    half = len(x) // 2
    rates = 10_000.0 ** -(np.arange(half) / half)
    pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * place * rates)
    return np.concatenate([pairs.real, pairs.imag])


def attended(states: list[Array], w: Weights, name: str, at: int, rotary: bool, ahead: bool) -> Array:
    """What the place ``at`` gathers from those that it sees: all, or itself and those before it."""
    found = []
    size = WIDTH // HEADS
    for head in range(HEADS):
        mine = [slice(part * WIDTH + head * size, part * WIDTH + (head + 1) * size) for part in range(3)]
        made = [linear(state, w, f"{name}.query_key_value") for state in states]
        query, keys, values = made[at][mine[0]], [one[mine[1]] for one in made], [one[mine[2]] for one in made]
        if rotary:
            query, keys = turned(query, at), [turned(key, place) for place, key in enumerate(keys)]
        last = len(states) if ahead else at + 1
        odds = np.exp([query @ key / math.sqrt(size) for key in keys[:last]])
        found.append(sum(odd * value for odd, value in zip(odds / odds.sum(), values[:last], strict=True)))
    return linear(np.concatenate(found), w, f"{name}.attention_out")


def block(states: list[Array], w: Weights, name: str, style: dict[str, Any], ahead: bool = False) -> list[Array]:
    after, gated = style.get("norm") == "after", style.get("gated", False)
    rotary = style.get("positions") == "rotary"
    first = states if after else [normed(state, w, f"{name}.attention_norm") for state in states]
    found = []
    for at, state in enumerate(states):
        part = attended(first, w, name, at, rotary, ahead)
        if gated:
            part = part * sigmoid(linear(state, w, f"{name}.attention_gate"))
        middle = state + part
        if after:
            middle = normed(middle, w, f"{name}.attention_norm")
        inner = middle if after else normed(middle, w, f"{name}.inner_norm")
        part = linear(gelu(linear(inner, w, f"{name}.inner")), w, f"{name}.outer")
        if gated:
            part = part * sigmoid(linear(middle, w, f"{name}.inner_gate"))
        found.append(normed(middle + part, w, f"{name}.inner_norm") if after else middle + part)
    return found


def scored(model: SequenceModel, history: list[int]) -> Array:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([history]))[0, 1:].numpy())


STYLES: dict[str, dict[str, Any]] = {
    "norms before": {},
    "norms after": {"norm": "after"},
    "gated": {"gated": True},
    "rotary": {"positions": "rotary"},
    "all of them": {"norm": "after", "gated": True, "positions": "rotary"},
}


@pytest.mark.parametrize("style", STYLES)
def test_a_transformer(style: str) -> None:
    spec = TransformerSpec(
        kind="transformer", width=WIDTH, blocks=2, heads=HEADS, length=LENGTH, dropout=0.0, **STYLES[style]
    )
    model, w = drawn(spec)
    states = [w["items.weight"][item] * math.sqrt(WIDTH) for item in HISTORY]
    if "positions" in w:
        states = [state + w["positions"][place] for place, state in enumerate(states)]
    for number in range(2):
        states = block(states, w, f"blocks.{number}", STYLES[style])
    expected = w["items.weight"][1:] @ normed(states[-1], w, "norm")
    np.testing.assert_allclose(scored(model, HISTORY), expected, rtol=1e-6, atol=1e-8)
    assert np.ptp(expected) > 0.1


def test_a_bidirectional_one_sees_the_hidden_event_at_place_0_and_counts_back_from_it() -> None:
    spec = BidirectionalSpec(kind="bidirectional", width=WIDTH, blocks=2, heads=HEADS, length=LENGTH, dropout=0.0)
    model, w = drawn(spec)
    row = [*(w["items.weight"][item] for item in HISTORY), w["hidden_event"]]
    states = [event * math.sqrt(WIDTH) + w["positions"][len(HISTORY) - place] for place, event in enumerate(row)]
    for number in range(2):
        states = block(states, w, f"blocks.{number}", {}, ahead=True)
    expected = w["items.weight"][1:] @ normed(states[-1], w, "norm")
    np.testing.assert_allclose(scored(model, HISTORY), expected, rtol=1e-6, atol=1e-8)


def test_a_gru() -> None:
    """r, z = sigmoid(...), n = tanh(W x + b + r * (U h + c)), h = (1 - z) n + z h, layer upon layer."""
    model, w = drawn(GruSpec(kind="gru", width=WIDTH, blocks=2, length=LENGTH, dropout=0.0))
    states = [w["items.weight"][item] * math.sqrt(WIDTH) for item in HISTORY]
    for layer in range(2):
        h, found = np.zeros(WIDTH), []
        for x in states:
            own = np.split(w[f"recurrent.weight_ih_l{layer}"] @ x + w[f"recurrent.bias_ih_l{layer}"], 3)
            past = np.split(w[f"recurrent.weight_hh_l{layer}"] @ h + w[f"recurrent.bias_hh_l{layer}"], 3)
            reset, keep = sigmoid(own[0] + past[0]), sigmoid(own[1] + past[1])
            h = (1.0 - keep) * np.tanh(own[2] + reset * past[2]) + keep * h
            found.append(h)
        states = found
    expected = w["items.weight"][1:] @ normed(states[-1], w, "norm")
    np.testing.assert_allclose(scored(model, HISTORY), expected, rtol=1e-6, atol=1e-8)


def ensemble(combine: str) -> Ensemble:
    member = MemberSpec(model=PopularitySpec(kind="popularity", length=2))
    model = build(EnsembleSpec(kind="ensemble", combine=combine, members={"a": member, "b": member}), 3)
    assert isinstance(model, Ensemble)
    return model


#: Softmaxes of these are (1/2, 1/4, 1/4) and, at temperature 2, (1/2, 3/8, 1/8).
ONE = torch.tensor([[-math.inf, math.log(2.0), 0.0, 0.0]])
TWO = torch.tensor([[-math.inf, 2.0 * math.log(4.0), 2.0 * math.log(3.0), 0.0]])


def test_an_ensemble_weighs_log_probabilities() -> None:
    """At weights 3/4 and 1/4, item 2: 3/4 ln 1/4 + 1/4 ln 3/8 = -1.28492; item 3: -1.55958; item 1: ln 1/2. Twice."""
    model = ensemble("weighted")
    model.calibrate(temperatures=[1.0, 2.0], weights=[0.75, 0.25], scale=2.0)
    found = model.together([ONE, TWO], torch.zeros((1, 2), dtype=torch.int64))[0]
    assert found.tolist() == pytest.approx([-math.inf, -1.386294, -2.569852, -3.119158], abs=1e-5)


def test_an_ensemble_listens_to_who_wavers_less() -> None:
    """After item 1 the first wavers between (1/2, 1/2), H = ln 2, the second between (3/4, 1/4), H = .562335.

    exp(-H) = .5 and .569877: shares .467344 and .532656. Item 2: -.647868 - .522444.
    """
    model = ensemble("confidence")
    model.calibrate(temperatures=[1.0, 2.0], weights=[0.5, 0.5], scale=1.0)
    found = model.together([ONE, TWO], torch.tensor([[1, 0]]))[0]
    assert found.tolist() == pytest.approx([-math.inf, -0.693147, -1.170322, -1.755502], abs=1e-5)


def test_a_cross_fitted_model_is_the_mean_of_all_for_a_stranger_and_one_of_them_for_its_own() -> None:
    inner = GruSpec(kind="gru", width=4, blocks=1, length=LENGTH, dropout=0.0)
    model = build(CrossFittedSpec(kind="cross_fitted", folds=2, model=inner), N_ITEMS, seed=4).eval()
    assert isinstance(model, CrossFitted)
    history = torch.tensor([HISTORY])
    with torch.no_grad():
        each = np.stack([member(history)[0, 1:].numpy() for member in model.members.values()])
        logs = each - np.log(np.exp(each).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(model(history)[0, 1:].numpy(), logs.mean(axis=0), rtol=1e-5)
        own = {tuple(model(history, torch.tensor([user]))[0, 1:].tolist()) for user in range(20)}
    assert own == {tuple(one.tolist()) for one in each}
