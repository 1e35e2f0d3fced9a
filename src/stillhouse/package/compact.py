"""Takes out of a graph what its file need not carry, and changes nothing of what it computes.

Each step leaves constants that ONNX Runtime works out once, when the file is loaded.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["WIDEN", "compact"]

#: Stands for a cast that the exporter must not work out; `compact` turns it into one.
WIDEN = "stillhouse::Widen"

#: Vectors shorter than this are left alone: nodes that make them cost as much.
_LONG = 64
#: What torch calls what stands behind a parametrised weight → what the file calls it.
_KEPT_AS = {"original0": ".codes", "original1": ".scales", "original": ""}


def compact(graph: onnx.ModelProto) -> None:
    """Shorten the file of ``graph``, in place.

    What stands as `WIDEN` becomes a cast; equal constants become one, and equal nodes; a long
    vector whose numbers after the first are all equal (the mask of the padding item) is made
    by the graph. Codes and scales are called after their weight.
    """
    _cast(graph)
    _share_constants(graph.graph)
    _rename(graph.graph)
    _share_nodes(graph.graph)
    # What makes constants comes first: nodes stand in the order in which they can run.
    for place, node in enumerate(_make_vectors(graph.graph)):
        graph.graph.node.insert(place, node)


def _cast(graph: onnx.ModelProto) -> None:
    domain, _, name = WIDEN.partition("::")
    for node in graph.graph.node:
        if (node.domain, node.op_type) == (domain, name):
            node.domain, node.op_type = "", "Cast"
    others = [one for one in graph.opset_import if one.domain != domain]
    del graph.opset_import[:]
    graph.opset_import.extend(others)


def _share_constants(graph: onnx.GraphProto) -> None:
    known: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    for tensor in list(graph.initializer):
        value = onnx.TensorProto()
        value.CopyFrom(tensor)
        value.name = ""
        digest = hashlib.sha256(value.SerializeToString(deterministic=True)).digest()
        first = known.setdefault(digest, tensor.name)
        if first != tensor.name:
            instead[tensor.name] = first
            graph.initializer.remove(tensor)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)


def _rename(graph: onnx.GraphProto) -> None:
    """Call what a weight is kept in by the weight's own name: ``items.weight.codes``, ``items.weight.scales``."""
    for tensor in graph.initializer:
        plain = tensor.name.replace("parametrizations.", "")
        for theirs, ours in _KEPT_AS.items():
            plain = re.sub(rf"\.{theirs}$", ours, plain)
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = plain if name == tensor.name else name
        tensor.name = plain


def _share_nodes(graph: onnx.GraphProto) -> None:
    """Let one node stand for all that do the same with the same."""
    known: dict[bytes, list[str]] = {}
    instead: dict[str, str] = {}
    outputs = {one.name for one in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        first = known.setdefault(_deed(node), list(node.output))
        if first[0] == node.output[0] or outputs.intersection(node.output):
            kept.append(node)
        else:
            instead.update(zip(node.output, first, strict=True))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _deed(node: onnx.NodeProto) -> bytes:
    """Return what a node does, whatever it and its outputs are called."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.name = ""
    for place in range(len(plain.output)):
        plain.output[place] = ""
    return bytes(plain.SerializeToString(deterministic=True))


def _make_vectors(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Make long vectors of one repeated number; return the nodes that make them."""
    made = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 1 or tensor.dims[0] < _LONG:
            continue
        values = numpy_helper.to_array(tensor)
        if (values[1:] != values[1]).any():
            continue
        name = tensor.name
        head, size, rest = f"{name}_head", f"{name}_size", f"{name}_rest"
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values[:1].copy(), head))
        graph.initializer.append(numpy_helper.from_array(np.array([len(values) - 1], np.int64), size))
        number = numpy_helper.from_array(values[1:2].copy())
        made.append(helper.make_node("ConstantOfShape", [size], [rest], name=f"make_{rest}", value=number))
        made.append(helper.make_node("Concat", [head, rest], [name], name=f"make_{name}", axis=0))
    return made
