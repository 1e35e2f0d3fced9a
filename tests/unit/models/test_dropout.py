from __future__ import annotations

import pytest
import torch

from stillhouse.models.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    found = Dropout(rate)(torch.ones(1000, 1001))
    assert (found == 0).float().mean().item() == pytest.approx(rate, abs=0.004)
    assert found.mean().item() == pytest.approx(1.0, abs=0.005)


def test_dropout_is_nothing_in_evaluation_and_at_rate_zero():
    values = torch.randn(7, 3)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_the_gradient_passes_where_the_value_did():
    values = torch.ones(50, 7, requires_grad=True)
    torch.manual_seed(1)
    found = Dropout(0.3)(values)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_neighbouring_values_are_dropped_independently():
    torch.manual_seed(2)
    kept = (Dropout(0.5)(torch.ones(80_000)) > 0).float().view(-1, 8)
    pairs = torch.corrcoef(kept.T) - torch.eye(8)
    assert pairs.abs().max() < 0.05
