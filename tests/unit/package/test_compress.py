"""Students in few bits: what stands in the file, and that it scores as the checkpoint with its matrices rounded."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from stillhouse.models.build import build
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.package.compress import exportable, rounded
from stillhouse.package.export import INPUT, OUTPUT, export_graph, serialise
from stillhouse.package.flops import flops_per_request
from stillhouse.package.parity import change, check_parity
from stillhouse.params.model import GruSpec, ModelSpec, ProductSpec, TransformerSpec

N_ITEMS = 300
SIZE = {"width": 8, "blocks": 1, "length": 6, "dropout": 0.1}
PRODUCT = {"splits": 4, "codes": 20}
SPECS: dict[str, ModelSpec] = {
    "rows": TransformerSpec(kind="transformer", heads=2, **SIZE),
    "shared parts": GruSpec(kind="gru", items=PRODUCT, **SIZE),
}
Made = tuple[SequenceModel, onnx.ModelProto]


@pytest.fixture(scope="module", params=SPECS, name="made")
def _made(request: pytest.FixtureRequest) -> Made:
    """A model whose scores are far enough apart to tell, and its graph of eight-bit weights."""
    model = build(SPECS[request.param], N_ITEMS, seed=3).eval().requires_grad_(False)
    next(model.items.parameters()).mul_(40)
    return model, export_graph(exportable(model, int8=True), model.length)


@pytest.fixture(scope="module", name="histories")
def _histories() -> np.ndarray:
    found = np.random.default_rng(0).integers(1, N_ITEMS + 1, (24, 6))
    for row in range(24):
        found[row, 1 + row % 6 :] = 0
    return found


def stored(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}


def test_the_graph_scores_as_the_rounded_checkpoint_and_not_as_the_checkpoint(
    made: Made, histories: np.ndarray
) -> None:
    model, graph = made
    data = serialise(copy.deepcopy(graph), {})
    assert check_parity(data, rounded(model), histories, 1e-4) < 1e-5
    assert 1e-3 < change(data, model, histories)["score_change"] < 0.5


def test_it_gives_the_list_of_the_rounded_checkpoint_however_the_session_is_set(
    made: Made, histories: np.ndarray
) -> None:
    model, graph = made
    session = onnxruntime.InferenceSession(serialise(copy.deepcopy(graph), {}), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run([OUTPUT], {INPUT: histories})[0])
    assert torch.equal(found.topk(10).indices, rounded(model)(torch.from_numpy(histories)).topk(10).indices)


def test_no_matrix_of_floats_is_left(made: Made) -> None:
    for name, value in stored(made[1]).items():
        assert value.squeeze().ndim < 2 or value.dtype in (np.int8, np.uint8), name


def test_an_item_costs_what_its_codes_and_scales_cost(made: Made) -> None:
    model, graph = made
    sizes = {name: value.nbytes for name, value in stored(graph).items() if name.startswith("items.")}
    if isinstance(model.items, torch.nn.Embedding):
        assert sizes == {"items.weight.codes": (N_ITEMS + 1) * 8, "items.weight.scales": (N_ITEMS + 1) * 2}
    else:
        shared = {"items.centroids.codes": 4 * 20 * 2, "items.centroids.scales": 4 * 2}
        assert sizes == {"items.codes": 5 * N_ITEMS * 4 // 8, **shared}, "20 codes are told apart by 5 bits"


def test_nothing_else_in_the_file_grows_with_the_catalogue(made: Made) -> None:
    others = {name: value.size for name, value in stored(made[1]).items() if not name.startswith("items.")}
    assert max(others.values()) < N_ITEMS


def test_the_graph_is_valid_and_its_cost_is_that_of_the_floats(made: Made) -> None:
    model, graph = made
    onnx.checker.check_model(graph, full_check=True)
    assert {one.domain for one in graph.opset_import} == {""}
    assert flops_per_request(graph) > 2 * model.width * (N_ITEMS + 1)


def test_codes_in_the_file_are_those_of_the_checkpoint(made: Made) -> None:
    """NumPy's own rounding, in float64: another form of the same rule."""
    model, graph = made
    kept, table = stored(graph), next(model.items.parameters())
    name = "items.weight" if isinstance(model.items, torch.nn.Embedding) else "items.centroids"
    weight = table.numpy().astype(np.float64)
    scales = kept[f"{name}.scales"].astype(np.float64)
    wide = scales.reshape(-1, *[1] * (weight.ndim - 1))
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    np.testing.assert_allclose(scales, largest / 127, rtol=2**-8)
    np.testing.assert_allclose(kept[f"{name}.codes"] * wide, weight, atol=1e-9 + wide.max() / 2)
    assert set(np.abs(kept[f"{name}.codes"].astype(int)).reshape(len(scales), -1).max(axis=1)) <= {0, 127}


@pytest.mark.parametrize("codes", [2, 3, 16, 20, 128, 129, 256])
def test_codes_of_shared_parts_take_the_bits_that_they_need_in_a_file_of_floats(codes: int) -> None:
    spec = SPECS["shared parts"].model_copy(update={"items": ProductSpec(splits=4, codes=codes)})
    model = build(spec, N_ITEMS - 1, seed=3).eval().requires_grad_(False)  # no whole number of bytes
    items = model.items
    assert isinstance(items, ProductItems)
    items.codes[:2] = torch.tensor([[codes - 1], [0]])
    served = exportable(model, int8=False)
    assert torch.equal(served.get_submodule("items").codes, items.codes.long())
    graph = export_graph(served, model.length)
    kept = stored(graph)["items.codes"]
    assert kept.dtype == np.uint8
    assert kept.nbytes == (codes - 1).bit_length() * math.ceil((N_ITEMS - 1) * 4 / 8)
    assert kept.nbytes == served.get_submodule("items").state_dict()["parametrizations.codes.original"].nbytes
    others = [value.size for name, value in stored(graph).items() if name != "items.codes"]
    assert max(others) == max(24 * 8, 8 * codes), "the matrices of the cell and the centroids"
    histories = np.random.default_rng(1).integers(1, N_ITEMS, (3, 6))
    assert check_parity(serialise(graph, {}), model, histories, 1e-4) < 1e-5


def test_the_model_that_is_given_stays_as_it_was(made: Made) -> None:
    model, _ = made
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    exportable(model, int8=True)
    rounded(model)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert TensorProto.INT8 not in {weight.dtype for weight in after.values()}
