"""One ONNX graph from padded histories to scores, the same bytes every time.

The exporter leaves stack traces, names of modules and the file paths of this
machine in the graph; all of that goes, and so equal checkpoints give equal files.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import nn

from stillhouse.package.compact import compact

__all__ = ["INPUT", "IR_VERSION", "OPSET", "OUTPUT", "export_graph", "serialise"]

#: What the graph takes: int64 [batch, length], right-padded with 0.
INPUT = "histories"
#: What the graph gives: float32 [batch, n_items + 1].
OUTPUT = "scores"
#: Operator set of the graph: the oldest that the exporter writes without converting afterwards.
OPSET = 18
#: Format version of the file, which every ONNX Runtime since 1.20 reads.
IR_VERSION = 10

#: Says at every export that torchvision, which nothing here needs, is not installed.
_CHATTY = "torch.onnx._internal.exporter._registration"


def export_graph(model: nn.Module, length: int) -> onnx.ModelProto:
    """Return ``model`` as an ONNX graph with a dynamic batch.

    Args:
        model: in evaluation mode on the CPU; ``forward`` takes int64 [batch, length]
            and gives float32 [batch, n_items + 1].
        length: columns of the input.

    Returns:
        The graph, `OPSET` and `IR_VERSION`, without metadata, weights inside and each stored once.
    """
    # Two rows: a batch of one would be taken for a constant.
    example = torch.ones((2, length), dtype=torch.int64)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph: onnx.ModelProto = program.model_proto
    _strip(graph)
    compact(graph)
    return graph


def serialise(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes with ``metadata`` inside; equal graphs and metadata give equal bytes."""
    del graph.metadata_props[:]
    for key in sorted(metadata):
        graph.metadata_props.add(key=key, value=metadata[key])
    return bytes(graph.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about its own insides; what it says about the model still comes through."""
    logger = logging.getLogger(_CHATTY)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            # torch's own GRU sets its list of weights while it is traced; the graph is right (parity is checked).
            warnings.filterwarnings("ignore", message="The tensor attributes? .*_flat_weights", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _strip(graph: onnx.ModelProto) -> None:
    graph.producer_name, graph.producer_version = "stillhouse", ""
    graph.domain, graph.model_version, graph.doc_string = "", 0, ""
    graph.ir_version = IR_VERSION
    inner = graph.graph
    inner.name = "student"
    del inner.value_info[:]
    for part in _parts(graph):
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            del part.metadata_props[:]


def _parts(graph: onnx.ModelProto) -> Iterable[Any]:
    inner = graph.graph
    yield from (inner, *inner.input, *inner.output, *inner.initializer, *inner.node)
    for function in graph.functions:
        yield from (function, *function.node)
    for node in inner.node:
        yield from (attribute.g for attribute in node.attribute if attribute.HasField("g"))
