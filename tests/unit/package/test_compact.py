"""The shortened file: the same scores from fewer bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stillhouse.package.compact import WIDEN, compact

TABLE = np.arange(12, dtype=np.uint8).reshape(6, 2)


def made(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 100])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid(WIDEN.partition("::")[0], 1)]
    return helper.make_model(graph, ir_version=10, opset_imports=domains)


def answer(graph: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": np.ones((2, 100), np.float32)})[0]
    return found


def test_a_mask_is_made_by_the_graph() -> None:
    mask = np.zeros(100, np.float32)
    mask[0] = -np.inf
    graph = made([helper.make_node("Add", ["x", "mask"], ["y"])], {"mask": mask})
    compact(graph)
    assert sum(numpy_helper.to_array(one).size for one in graph.graph.initializer) == 2
    found = answer(graph)
    assert np.isneginf(found[:, 0]).all()
    assert (found[:, 1:] == 1.0).all()


@pytest.mark.parametrize("place", [1, 50, 99])
def test_a_vector_of_several_numbers_stays(place: int) -> None:
    vector = np.zeros(100, np.float32)
    vector[place] = 3.0
    graph = made([helper.make_node("Add", ["x", "vector"], ["y"])], {"vector": vector})
    compact(graph)
    assert [one.name for one in graph.graph.initializer] == ["vector"]
    assert answer(graph)[0, place] == 4.0


def test_equal_constants_and_equal_nodes_become_one_each() -> None:
    same = np.linspace(0, 1, 100, dtype=np.float32)
    nodes = [
        helper.make_node("Exp", ["a"], ["left"], name="first"),
        helper.make_node("Exp", ["b"], ["right"], name="second"),
        helper.make_node("Neg", ["right"], ["minus"]),
        helper.make_node("Add", ["left", "minus"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    graph = made(nodes, {"a": same, "b": same.copy()})
    compact(graph)
    assert [one.name for one in graph.graph.initializer] == ["a"]
    assert [node.op_type for node in graph.graph.node] == ["Exp", "Neg", "Add", "Add"]
    np.testing.assert_allclose(answer(graph), 1.0)


def test_nodes_that_differ_in_what_they_do_stay_apart() -> None:
    nodes = [
        helper.make_node("ReduceSum", ["a", "axis"], ["kept"], keepdims=1),
        helper.make_node("ReduceSum", ["a", "axis"], ["flat"], keepdims=0),
        helper.make_node("Add", ["kept", "flat"], ["both"]),
        helper.make_node("Add", ["x", "both"], ["y"]),
    ]
    graph = made(nodes, {"a": np.ones(3, np.float32), "axis": np.array([0], np.int64)})
    compact(graph)
    assert len(graph.graph.node) == 4


def test_what_must_not_be_worked_out_becomes_a_cast_and_leaves_no_trace() -> None:
    domain, _, name = WIDEN.partition("::")
    nodes = [
        helper.make_node(
            name, ["items.parametrizations.codes.original"], ["wide"], domain=domain, to=TensorProto.INT64
        ),
        helper.make_node("ReduceMax", ["wide"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "float"], ["y"]),
    ]
    graph = made(nodes, {"items.parametrizations.codes.original": TABLE})
    compact(graph)
    assert [one.domain for one in graph.opset_import] == [""]
    assert [(one.name, one.data_type) for one in graph.graph.initializer] == [("items.codes", TensorProto.UINT8)]
    assert (answer(graph) == 12.0).all()


def test_codes_and_scales_are_called_after_their_weight() -> None:
    kept = "layer.parametrizations.weight.original"
    nodes = [
        helper.make_node("DequantizeLinear", [f"{kept}0", f"{kept}1"], ["row"], axis=0),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    graph = made(nodes, {f"{kept}0": np.ones((1, 100), np.int8), f"{kept}1": np.array([0.5], np.float32)})
    compact(graph)
    assert sorted(one.name for one in graph.graph.initializer) == ["layer.weight.codes", "layer.weight.scales"]
    assert (answer(graph) == 1.5).all()
