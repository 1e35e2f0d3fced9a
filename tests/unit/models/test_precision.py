"""Scores are float32 products of the states, whatever precision the states are made in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.queries import best_product
from stillhouse.params.model import BidirectionalSpec, ComputeSpec, GruSpec, SequenceSpec, TransformerSpec
from stillhouse.stages.check_teacher import _torch_scorer
from stillhouse.train.compute import fabric_of

N_ITEMS = 40
HISTORIES = torch.tensor([[1, 2, 3, 0], [5, 4, 3, 2], [7, 0, 0, 0]])
SPECS: dict[str, SequenceSpec] = {
    "transformer": TransformerSpec(kind="transformer", width=16, blocks=1, heads=2, length=4, dropout=0.0),
    "asking": TransformerSpec(kind="transformer", width=16, blocks=1, heads=2, length=4, dropout=0.0, queries=2),
    "gru": GruSpec(kind="gru", width=16, blocks=1, length=4, dropout=0.0, items={"splits": 4, "codes": 6}),
    "rounded": GruSpec(kind="gru", width=16, blocks=1, length=4, dropout=0.0, weights="int8"),
    "bidirectional": BidirectionalSpec(kind="bidirectional", width=16, blocks=1, heads=2, length=4, dropout=0.0),
}


@pytest.fixture(params=SPECS, name="model")
def _model(request: pytest.FixtureRequest) -> SequenceModel:
    model = build(SPECS[request.param], N_ITEMS, seed=3).eval()
    assert isinstance(model, SequenceModel)
    return model


def plainly(states: torch.Tensor, model: SequenceModel) -> torch.Tensor:
    """Return the products as they always were: one matrix product of float32 and a mask."""
    if model.queries is not None:
        return best_product(states, model.items.weight) + model.mask
    return torch.nn.functional.linear(states, model.items.weight, model.mask)


@torch.no_grad()
def test_scores_in_mixed_precision_are_the_float32_products_of_the_states(model: SequenceModel) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scored, scorer = model(HISTORIES), model.position_scorer(HISTORIES)
        everywhere, states = scorer(slice(None)), model.position_hidden(HISTORIES)
    assert scored.dtype == everywhere.dtype == torch.float32
    assert torch.equal(everywhere, plainly(states.float(), model))
    torch.testing.assert_close(scored, everywhere[[2, 6, 7]], atol=0.02, rtol=0.0)
    assert not torch.equal(everywhere, everywhere.bfloat16().float())


@torch.no_grad()
def test_float32_scores_keep_their_bits(model: SequenceModel) -> None:
    assert torch.equal(model.position_scores(HISTORIES), plainly(model.position_hidden(HISTORIES), model))


@torch.no_grad()
def test_a_model_in_half_precision_scores_in_float32() -> None:
    model = build(SPECS["transformer"], N_ITEMS, seed=3).eval().bfloat16()
    scores = model.scores(torch.ones((2, 16), dtype=torch.bfloat16))
    assert scores.dtype == torch.float32
    assert torch.isneginf(scores[:, 0]).all()


def test_the_check_of_a_teacher_ranks_by_float32_scores(model: SequenceModel) -> None:
    fabric = fabric_of(ComputeSpec(device="cpu", precision="bf16-mixed", threads=1))
    found = _torch_scorer(model, torch.device("cpu"), fabric.autocast)(HISTORIES.numpy())
    with torch.no_grad(), fabric.autocast():
        expected = model(HISTORIES).numpy()
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, torch.from_numpy(found).bfloat16().float().numpy())
