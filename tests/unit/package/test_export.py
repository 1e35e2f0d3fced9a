"""The graph: one file, one copy of each weight, the same bytes, nothing of this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from stillhouse.models.protocol import SequenceModel
from stillhouse.models.transformer import Transformer
from stillhouse.package.export import INPUT, IR_VERSION, OPSET, OUTPUT, export_graph, serialise


def copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    return other


def test_a_second_export_is_the_same_bytes(student: SequenceModel, graph: onnx.ModelProto) -> None:
    again = export_graph(student, student.length)
    assert serialise(again, {"b": "2", "a": "1"}) == serialise(copy(graph), {"a": "1", "b": "2"})


def test_another_process_with_another_hash_seed_writes_the_same_bytes(
    student: SequenceModel, graph: onnx.ModelProto
) -> None:
    if not isinstance(student, Transformer) or student.queries is not None:
        pytest.skip("one model is enough: a process takes seconds")
    code = """
        import hashlib
        from stillhouse.models.build import build
        from stillhouse.package.export import export_graph, serialise
        from stillhouse.params.model import TransformerSpec
        spec = TransformerSpec(kind="transformer", width=8, blocks=1, heads=2, length=6, dropout=0.1)
        graph = export_graph(build(spec, 40, seed=3).eval(), 6)
        del graph.graph.initializer[:]
        print(hashlib.sha256(serialise(graph, {"a": "1"})).hexdigest())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    here = copy(graph)
    del here.graph.initializer[:]  # the fixture's weights were changed; structure and names are what is compared
    assert done.stdout.strip() == hashlib.sha256(serialise(here, {"a": "1"})).hexdigest()


def test_the_file_names_nothing_of_this_machine(graph: onnx.ModelProto) -> None:
    data = serialise(copy(graph), {})
    for word in (b"site-packages", b".py", b"/home", b"pytorch", b"stack_trace", str(Path.cwd()).encode()):
        assert word not in data


def test_the_graph_is_valid_pinned_and_in_one_file(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version == IR_VERSION
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", OPSET)]
    assert all(one.data_location == TensorProto.DEFAULT for one in graph.graph.initializer)


def test_the_batch_is_dynamic_and_the_names_are_fixed(student: SequenceModel, graph: onnx.ModelProto) -> None:
    (taken,), (given,) = graph.graph.input, graph.graph.output
    assert (taken.name, given.name) == (INPUT, OUTPUT) == ("histories", "scores")
    assert [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim] == ["batch", student.length]
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == [
        "batch",
        student.n_items + 1,
    ]


def test_the_tied_item_table_is_stored_once(student: SequenceModel, graph: onnx.ModelProto) -> None:
    size = (student.n_items + 1) * student.width
    stored = [one.name for one in graph.graph.initializer if np.prod(one.dims, dtype=int) == size]
    assert len(stored) == 1


def test_a_large_item_table_is_stored_once_too() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = torch.nn.Embedding(5000, 8)

        def forward(self, histories: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(self.items(histories).mean(1), self.items.weight)

    data = serialise(export_graph(Tied().eval(), 3), {})
    assert 5000 * 8 * 4 < len(data) < 1.1 * 5000 * 8 * 4


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_any_batch_scores_as_the_model_does(student: SequenceModel, graph: onnx.ModelProto, rows: int) -> None:
    generator = np.random.default_rng(rows)
    histories = generator.integers(1, student.n_items + 1, (rows, student.length))
    for row in range(rows):
        histories[row, row:] = 0
    session = onnxruntime.InferenceSession(serialise(copy(graph), {}), providers=["CPUExecutionProvider"])
    found = session.run([OUTPUT], {INPUT: histories})[0]
    with torch.no_grad():
        expected = student(torch.from_numpy(histories)).numpy()
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=1e-5)
    assert np.isneginf(found[:, 0]).all()
    assert found.dtype == np.float32


def test_metadata_travels_inside(graph: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(
        serialise(copy(graph), {"item_ids": '["é"]'}), providers=["CPUExecutionProvider"]
    )
    assert session.get_modelmeta().custom_metadata_map == {"item_ids": '["é"]'}


def test_metadata_is_replaced_not_added_to(graph: onnx.ModelProto) -> None:
    one, other = copy(graph), copy(graph)
    serialise(one, {"a": "first"})
    digests = [hashlib.sha256(serialise(each, {"a": "second"})).hexdigest() for each in (one, other)]
    assert digests[0] == digests[1]
