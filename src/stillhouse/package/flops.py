"""What one request costs in arithmetic, counted from the graph that serves it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx

__all__ = ["flops_per_request"]

Shape = tuple[int, ...]

#: Gates of a recurrent cell: each is one product with the input and one with the state.
_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def flops_per_request(graph: onnx.ModelProto) -> int:
    """Return the floating-point operations of one request: a batch of one.

    A multiplication and an addition count as two. Matrix products and recurrent
    cells are counted; what works element by element (activations, norms, masks)
    is not: it is a few per cent, and conventions differ on it.

    Raises:
        ValueError: the shape of a matrix product is not known from the graph.
    """
    shapes = _shapes(graph)
    return sum(_COUNT[node.op_type](node, shapes) for node in graph.graph.node if node.op_type in _COUNT)


def _shapes(graph: onnx.ModelProto) -> dict[str, Shape]:
    one = onnx.ModelProto()
    one.CopyFrom(graph)
    for value in (*one.graph.input, *one.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    known: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    return known


def _shape(name: str, shapes: dict[str, Shape]) -> Shape:
    if name not in shapes:
        raise ValueError(f"the shape of {name} must be known to count its cost, found none in the graph")
    return shapes[name]


def _matmul(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    return 2 * prod(_shape(node.output[0], shapes)) * _shape(node.input[0], shapes)[-1]


def _gemm(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    left = _shape(node.input[0], shapes)
    return 2 * prod(_shape(node.output[0], shapes)) * left[0 if transposed else -1]


def _recurrent(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    # Of what goes in, the second layer's shape is not known from the graph; its weights' and its result's are.
    steps, directions, batch, hidden = _shape(node.output[0], shapes)
    inputs = _shape(node.input[1], shapes)[-1]
    return 2 * steps * batch * directions * _GATES[node.op_type] * hidden * (inputs + hidden)


_COUNT: dict[str, Callable[[onnx.NodeProto, dict[str, Shape]], int]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(_GATES, _recurrent),
}
