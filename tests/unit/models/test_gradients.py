"""Layers' gradients against finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.models.bidirectional import Bidirectional
from stillhouse.models.block import Block, BlockStyle
from stillhouse.models.gru import Gru
from stillhouse.models.queries import Queries, best_product
from stillhouse.params.model import BidirectionalSpec, GruSpec

WIDTH = 4
STYLES = {
    "norms before": BlockStyle(),
    "norms after": BlockStyle(norm_after=True),
    "gated": BlockStyle(gated=True),
    "gated, norms after": BlockStyle(gated=True, norm_after=True),
    "rotary": BlockStyle(rotary=True),
}


def drawn(*shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()


def holds(module: nn.Module, state: Tensor, *rest: Tensor) -> bool:
    """Say whether what ``module`` gives has the gradient of finite differences, by ``state`` and by every weight.

    Each of them is moved in a direction that is drawn. So are the weights: of fresh ones some are 0 or 1, where a
    wrong factor would not be seen.
    """
    module = module.double().eval()
    names = [name for name, _ in module.named_parameters()]
    generator = torch.Generator().manual_seed(1)
    weights = [
        (0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for weight in module.parameters()
    ]

    def given(state: Tensor, *weights: Tensor) -> Tensor:
        found: Tensor = functional_call(module, dict(zip(names, weights, strict=True)), (state, *rest))
        return found

    return bool(torch.autograd.gradcheck(given, (state, *weights), fast_mode=True))


@pytest.mark.parametrize("style", STYLES)
def test_a_block_looking_back(style: str) -> None:
    assert holds(Block(WIDTH, 2, 0.0, STYLES[style]), drawn(1, 3, WIDTH))


def test_a_block_looking_both_ways() -> None:
    assert holds(Block(WIDTH, 2, 0.0), drawn(2, 3, WIDTH), torch.tensor([[True, True, True], [True, True, False]]))


class _States(nn.Module):
    """A GRU from its events' vectors on."""

    def __init__(self) -> None:
        super().__init__()
        model = Gru(GruSpec(kind="gru", width=WIDTH, blocks=2, length=3, dropout=0.0), 3)
        self.recurrent, self.norm = model.recurrent, model.norm

    def forward(self, events: Tensor) -> Tensor:
        found: Tensor = self.norm(self.recurrent(events)[0])
        return found


def test_a_gru() -> None:
    assert holds(_States(), drawn(1, 3, WIDTH))


def test_a_whole_gru_by_its_items_too() -> None:
    model = Gru(GruSpec(kind="gru", width=WIDTH, blocks=1, length=3, dropout=0.0, queries=2), 3).double().eval()
    table = drawn(4, WIDTH)

    def scores(table: Tensor) -> Tensor:
        found: Tensor = functional_call(model, {"items.weight": table}, (torch.tensor([[1, 3, 2]]),))
        return found[:, 1:]

    assert torch.autograd.gradcheck(scores, (table,))


def test_a_bidirectional_one_by_everything_that_it_reads() -> None:
    spec = BidirectionalSpec(kind="bidirectional", width=WIDTH, blocks=1, heads=2, length=3, dropout=0.0)
    model = Bidirectional(spec, 3).double().eval()
    names = [name for name, _ in model.named_parameters()]
    generator = torch.Generator().manual_seed(2)
    weights = [
        (0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for weight in model.parameters()
    ]

    def scores(*weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        found: Tensor = functional_call(model, given, (torch.tensor([[1, 3, 2], [2, 0, 0]]),))
        return found[:, 1:]

    assert torch.autograd.gradcheck(scores, tuple(weights), fast_mode=True)


def test_queries_and_the_best_of_their_products() -> None:
    assert holds(Queries(WIDTH, 3), drawn(2, WIDTH))
    assert torch.autograd.gradcheck(best_product, (drawn(2, 3 * WIDTH), drawn(5, WIDTH)))
