"""Eight-bit weights: how far rounding moves a value, and what a model that trains with them keeps and shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.quantised import dequantise, keep_rounded, matrices, quantise, trained
from stillhouse.params.model import GruSpec, ModelSpec, TransformerSpec

SIZE = {"width": 8, "blocks": 1, "length": 5, "dropout": 0.0}
SPECS: dict[str, ModelSpec] = {
    "transformer": TransformerSpec(kind="transformer", heads=2, weights="int8", **SIZE),
    "gru": GruSpec(kind="gru", weights="int8", **SIZE),
    "shared parts": GruSpec(kind="gru", weights="int8", items={"splits": 2, "codes": 4}, **SIZE),
}
HISTORIES = torch.tensor([[1, 2, 3, 0, 0], [7, 6, 5, 4, 3]])
TABLES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.just(0.0) | st.floats(2.0**-60, 2.0**60, width=32) | st.floats(-(2.0**60), -(2.0**-60), width=32),
)


@pytest.fixture(params=SPECS, name="spec")
def _spec(request: pytest.FixtureRequest) -> ModelSpec:
    return SPECS[request.param]


@pytest.fixture(name="model")
def _model(spec: ModelSpec) -> SequenceModel:
    return build(spec, 9, seed=1).eval()


@settings(deadline=None)
@given(TABLES)
def test_no_value_moves_by_more_than_half_a_step(table: np.ndarray) -> None:
    codes, scales = quantise(torch.from_numpy(table))
    steps = scales.double().numpy().reshape(-1, *[1] * (table.ndim - 1))
    # The reference: float64, and no code but that of the nearest step.
    moved = np.abs(codes.double().numpy() * steps - table.astype(np.float64))
    assert (moved <= steps * (0.5 + 1e-6)).all()
    assert codes.dtype == torch.int8
    assert int(codes.min()) >= -127


@settings(deadline=None)
@given(TABLES)
def test_rounding_what_is_rounded_changes_nothing(table: np.ndarray) -> None:
    codes, scales = quantise(torch.from_numpy(table))
    again = quantise(dequantise(codes, scales))
    assert torch.equal(codes, again[0])
    assert torch.equal(scales, again[1])


def test_scales_are_values_of_bfloat16_and_those_of_zeros_are_zero() -> None:
    table = torch.tensor([[0.3, -0.1], [0.0, 0.0], [1e-20, 5e-21], [1e-31, 0.0]])
    codes, scales = quantise(table)
    assert torch.equal(scales, scales.bfloat16().float())
    assert scales[1] == 0.0
    assert codes[1].tolist() == [0, 0]
    assert codes[2].tolist() in ([127, 63], [127, 64])
    assert scales[3] == 0.0


def test_rows_are_rounded_apart_from_each_other() -> None:
    table = torch.tensor([[1.0, 0.3], [1024.0, 307.2]])
    codes, scales = quantise(table)
    assert torch.equal(codes[0], codes[1])
    assert scales[1] / scales[0] == 1024.0


@torch.no_grad()
def test_a_model_computes_with_rounded_matrices(spec: ModelSpec, model: SequenceModel) -> None:
    plain = build(spec.model_copy(update={"weights": "float32"}), 9, seed=1).eval()
    for weight in plain.parameters():
        if weight.ndim > 1:
            weight.copy_(dequantise(*quantise(weight)))
    torch.testing.assert_close(model(HISTORIES), plain(HISTORIES), atol=1e-7, rtol=1e-6)


def test_what_is_kept_has_the_names_and_values_of_a_model_of_floats(spec: ModelSpec, model: SequenceModel) -> None:
    plain = build(spec.model_copy(update={"weights": "float32"}), 9, seed=1)
    kept, expected = model.state_dict(), plain.state_dict()
    assert sorted(kept) == sorted(expected)
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


@torch.no_grad()
def test_what_is_kept_loads_into_either(spec: ModelSpec, model: SequenceModel) -> None:
    other = build(spec, 9, seed=2).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(HISTORIES), model(HISTORIES))
    plain = build(spec.model_copy(update={"weights": "float32"}), 9, seed=2)
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(plain.eval()(HISTORIES), model(HISTORIES))


def test_a_state_that_lacks_a_weight_is_refused(model: SequenceModel) -> None:
    state = dict(model.state_dict())
    del state["norm.weight"]
    with pytest.raises(RuntimeError, match=r"norm\.weight"):
        model.load_state_dict(state)


def test_the_gradient_is_that_at_the_rounded_weights_and_moves_the_weights_behind(
    spec: ModelSpec, model: SequenceModel
) -> None:
    plain = build(spec.model_copy(update={"weights": "float32"}), 9, seed=1).eval()
    with torch.no_grad():
        for weight in plain.parameters():
            if weight.ndim > 1:
                weight.copy_(dequantise(*quantise(weight)))
    for one in (plain, model):
        one(HISTORIES)[:, 1:].square().sum().backward()
    for layer, name in matrices(plain):
        place = next(path for path, part in plain.named_modules() if part is layer)
        behind = trained(model.get_submodule(place), name)
        torch.testing.assert_close(behind.grad, layer.get_parameter(name).grad)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.optim.SGD(model.parameters(), 1e-6).step()
    after = model.state_dict()
    # Steps far below the rounding add up all the same.
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_keeping_the_rounded_values_changes_no_score_and_leaves_a_plain_model(model: SequenceModel) -> None:
    before = model(HISTORIES)
    keep_rounded(model)
    assert torch.equal(model(HISTORIES), before)
    assert all("parametrizations" not in name for name, _ in model.named_parameters())
    model.train()(HISTORIES)[:, 1:].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_model_of_floats_is_left_alone() -> None:
    model = build(GruSpec(kind="gru", **SIZE), 9, seed=1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    keep_rounded(model)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert trained(model.items, "weight") is model.items.weight
