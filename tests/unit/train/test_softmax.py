"""The loss in parts is the loss on the whole table, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from objectives import on_scores

from stillhouse.distill.hard import HardObjective
from stillhouse.distill.protocol import PositionBatch
from stillhouse.train import softmax
from stillhouse.train.softmax import catalogue_loss


def _batch(positions: int, items: int) -> PositionBatch:
    draw = torch.Generator().manual_seed(3)
    return PositionBatch(
        targets=torch.randint(1, items + 1, (positions,), generator=draw),
        weights=torch.rand(positions, generator=draw),
        users=torch.zeros(positions, dtype=torch.int64),
        steps=torch.arange(positions),
    )


@pytest.mark.parametrize("cells", [1, 60, 10_000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_any_size_give_the_loss_and_gradient_of_the_whole_table(monkeypatch, cells, smoothing):
    monkeypatch.setattr(softmax, "_CELLS_CPU", cells)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(17, 4, generator=draw, dtype=torch.float64)
    table = torch.randn(12, 4, generator=draw, dtype=torch.float64)
    batch, objective = _batch(17, 11), HardObjective(smoothing)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    found = catalogue_loss(ours[0], ours[1], objective.lesson(batch))
    whole = on_scores(objective, theirs[0] @ theirs[1].T, batch)
    torch.testing.assert_close(found.total, whole.total)
    torch.testing.assert_close(found.parts["hard_loss"], whole.parts["hard_loss"])
    (3.0 * found.total).backward()
    (3.0 * whole.total).backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_label_smoothing_is_the_cross_entropy_against_smoothed_labels():
    scores = torch.randn(5, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = PositionBatch(torch.tensor([1, 2, 3, 8, 8]), torch.ones(5).double(), torch.zeros(5).long(), torch.arange(5))
    expected = torch.nn.functional.cross_entropy(scores[:, 1:], batch.targets - 1, label_smoothing=0.2)
    assert on_scores(HardObjective(0.2), scores, batch).total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_half_precision_factors_keep_the_loss_and_the_gradients_direction():
    draw = torch.Generator().manual_seed(4)
    hidden, table = torch.randn(64, 16, generator=draw), torch.randn(40, 16, generator=draw)
    batch = _batch(64, 39)
    grads, losses = [], []
    for dtype in (None, torch.bfloat16):
        state = hidden.clone().requires_grad_()
        found = catalogue_loss(state, table, HardObjective().lesson(batch), dtype=dtype)
        found.total.backward()
        losses.append(found.total.item())
        grads.append(state.grad.flatten())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.nn.functional.cosine_similarity(*grads, dim=0) > 0.999
