"""Small real students and their graphs, made once a process: an export takes seconds."""

from __future__ import annotations

import onnx
import pytest
import torch

from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.package.export import export_graph
from stillhouse.params.model import GruSpec, ModelSpec, TransformerSpec

N_ITEMS = 40
SPECS: dict[str, ModelSpec] = {
    "transformer": TransformerSpec(kind="transformer", width=8, blocks=1, heads=2, length=6, dropout=0.1),
    "other style": TransformerSpec(
        kind="transformer",
        width=8,
        blocks=1,
        heads=2,
        length=6,
        dropout=0.1,
        queries=3,
        positions="rotary",
        norm="after",
        gated=True,
    ),
    "gru": GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.1),
    "gru of two layers": GruSpec(kind="gru", width=8, blocks=2, length=6, dropout=0.1),
}


@pytest.fixture(scope="session", params=sorted(SPECS))
def student(request: pytest.FixtureRequest) -> SequenceModel:
    """An untrained model whose scores are far enough apart to tell."""
    model = build(SPECS[request.param], N_ITEMS, seed=3).eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="session")
def graph(student: SequenceModel) -> onnx.ModelProto:
    """Its graph."""
    return export_graph(student, student.length)
