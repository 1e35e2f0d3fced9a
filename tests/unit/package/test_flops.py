"""FLOPs, counted by hand beside the graph."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from stillhouse.models.gru import Gru
from stillhouse.models.protocol import SequenceModel
from stillhouse.package.flops import flops_per_request


def test_a_whole_student_costs_what_its_layers_cost(student: SequenceModel, graph: onnx.ModelProto) -> None:
    length, width, items = student.length, student.width, student.n_items + 1
    scoring = 2 * width * items
    if isinstance(student, Gru):
        expected = student.recurrent.num_layers * 2 * length * 3 * width * (width + width) + scoring
    else:
        projections = 2 * length * width * (3 * width + width)
        attention = 2 * (2 * length * length * width)
        feed_forward = 2 * (2 * length * width * 2 * width)
        expected = projections + attention + feed_forward + scoring
        if student.queries is not None:  # three of them, and a gate for each part of the layer
            expected += 2 * (2 * length * width * width) + 2 * width * 4 * width * (1 + 3) + 2 * scoring
    assert flops_per_request(graph) == expected


def test_counting_leaves_the_graph_as_it_was(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString(deterministic=True)
    flops_per_request(graph)
    assert graph.SerializeToString(deterministic=True) == before


def _one(op: str, left: list[object], right: list[int], out: list[object], **attributes: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["a", "b"], ["c"], **attributes)],
        "one",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, left)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, out)],
        [helper.make_tensor("b", TensorProto.FLOAT, right, [0.0] * (right[0] * right[1]))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("op", "left", "attributes"),
    [("MatMul", ["batch", 3], {}), ("Gemm", ["batch", 3], {}), ("Gemm", [3, "batch"], {"transA": 1})],
)
def test_a_product_is_two_operations_for_each_multiplication(
    op: str, left: list[object], attributes: dict[str, int]
) -> None:
    assert flops_per_request(_one(op, left, [3, 5], ["batch", 5], **attributes)) == 2 * 3 * 5


def test_what_works_element_by_element_is_not_counted() -> None:
    assert flops_per_request(_one("Add", ["batch", 5], [1, 5], ["batch", 5])) == 0
