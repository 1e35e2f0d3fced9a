"""Item tables of shared parts, and the codes that say which parts are shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.models.build import build
from stillhouse.models.product_codes import assign_codes, dealt, fit_codes, item_components, quantile_codes
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import GruSpec, ProductSpec

SPEC = GruSpec(kind="gru", width=8, blocks=1, length=5, dropout=0.0, items=ProductSpec(splits=4, codes=3))


@pytest.fixture(name="items")
def _items() -> ProductItems:
    torch.manual_seed(0)
    return ProductItems(6, 8, ProductSpec(splits=4, codes=3), std=1.0)


@pytest.fixture(name="events")
def _events(make_sequences: Callable[..., tuple[Path, Path]]) -> Sequences:
    """Forty people of two kinds: one takes items 1 to 10, the other 11 to 20."""
    draw = np.random.default_rng(3)
    histories = [[int(item) + 1 + 10 * (user % 2) for item in draw.permutation(10)[:6]] for user in range(40)]
    return Sequences.open(make_sequences(histories)[1])


def model_of(n_items: int) -> SequenceModel:
    return build(SPEC, n_items, seed=1)


def codes_of(model: SequenceModel) -> torch.Tensor:
    assert isinstance(model.items, ProductItems)
    return model.items.codes


def test_a_row_is_the_parts_that_its_codes_name(items: ProductItems) -> None:
    table = items.weight
    assert table.shape == (7, 8)
    for item in range(1, 7):
        parts = [items.centroids[split, int(code)] for split, code in enumerate(items.codes[item - 1])]
        assert torch.equal(table[item], torch.cat(parts))
    assert torch.equal(items(torch.tensor([[6, 0]])), table[[6, 0]].unsqueeze(0))


def test_the_padding_row_is_zero_and_the_gradient_reaches_each_centroid_as_often_as_it_is_named(
    items: ProductItems,
) -> None:
    items.weight.sum().backward()
    assert not items.weight[0].any()
    assert items.centroids.grad is not None
    named = torch.stack([torch.bincount(items.codes[:, split], minlength=3) for split in range(4)])
    assert torch.equal(items.centroids.grad, named[:, :, None].expand(4, 3, 2).float())


def test_codes_are_no_weight_and_cost_a_byte(items: ProductItems) -> None:
    assert [name for name, _ in items.named_parameters()] == ["centroids"]
    assert items.codes.dtype == torch.uint8
    assert items.codes.max() < 3


def test_components_are_those_of_a_whole_decomposition(events: Sequences) -> None:
    matrix = np.zeros((events.n_users, events.n_items))
    for user in range(events.n_users):
        matrix[user, events.history(user, int(events.train_length[user])) - 1] = 1.0
    expected = np.linalg.svd(matrix, full_matrices=False)[2][:4].T
    found = item_components(events, 4).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)


def test_more_components_than_there_are_give_zeros(make_sequences: Callable[..., tuple[Path, Path]]) -> None:
    _, folder = make_sequences([[1, 2, 3, 1, 2], [3, 2, 1, 2, 1]])
    found = item_components(Sequences.open(folder), 5)
    assert found.shape == (3, 5)
    assert bool(found.isfinite().all())


def test_codes_share_the_order_equally() -> None:
    values = torch.randn(101, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes = quantile_codes(values, 8)
    for column in range(3):
        counts = torch.bincount(codes[:, column].long(), minlength=8)
        assert int(counts.max() - counts.min()) <= 1
        order = values[:, column].argsort()
        assert bool((codes[order, column].long().diff() >= 0).all())


def test_fewer_items_than_codes_get_codes_of_their_own() -> None:
    assert quantile_codes(torch.tensor([[0.2], [0.1]], dtype=torch.float64), 256).flatten().tolist() == [128, 0]


def test_items_that_the_same_people_take_share_more_parts(events: Sequences) -> None:
    model = model_of(20)
    assign_codes(model, events)
    codes = codes_of(model)
    alike = (codes[:, None] == codes[None]).float().mean(2)
    kinds = torch.arange(20) // 10
    same = (kinds[:, None] == kinds[None]) & ~torch.eye(20, dtype=torch.bool)
    assert alike[same].mean() > alike[kinds[:, None] != kinds[None]].mean() + 0.1


def test_codes_depend_on_training_rows_alone(events: Sequences) -> None:
    one, other, third = model_of(20), model_of(20), model_of(20)
    assign_codes(one, events)
    last = np.asarray(events.offsets)[1:] - 1
    held_out = np.array(events.items)
    held_out[last] = 1
    assign_codes(other, replace(events, items=held_out))
    assert torch.equal(codes_of(one), codes_of(other))
    assign_codes(third, replace(events, items=np.roll(np.array(events.items), 7)))
    assert not torch.equal(codes_of(one), codes_of(third))


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_codes_fitted_to_a_table_come_near_it_in_either_precision(weights: str) -> None:
    table = torch.randn(60, 8, generator=torch.Generator().manual_seed(2))
    items = build(SPEC.model_copy(update={"weights": weights, "items": ProductSpec(splits=4, codes=30)}), 59).items
    assert isinstance(items, ProductItems)
    fit_codes(items, table)
    assert (items.weight - table)[1:].square().mean() < 0.1 * table.square().mean()
    assert not items.weight[0].any()


def test_dealt_columns_hold_the_same_rows_and_are_nearer_to_shared_parts() -> None:
    spread = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.7, 0.4, 0.2])
    table = torch.randn(300, 8, generator=torch.Generator().manual_seed(3)) * spread
    turned = dealt(table, 4)
    torch.testing.assert_close(turned @ turned.T, table @ table.T)
    error = []
    for rows in (table, turned):
        items = ProductItems(299, 8, ProductSpec(splits=4, codes=16), std=1.0)
        fit_codes(items, rows)
        error.append(float((items.weight.detach() - rows)[1:].square().mean()))
    assert error[1] < 0.8 * error[0]


def test_codes_fitted_to_a_table_are_nearer_than_any_other_code_and_always_the_same() -> None:
    table = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    one = ProductItems(199, 8, ProductSpec(splits=4, codes=16), std=1.0)
    fit_codes(one, table)
    parts = table[1:].view(199, 4, 2)
    for split in range(4):
        distance = torch.cdist(parts[:, split], one.centroids[split])
        assert torch.equal(distance.argmin(dim=1), one.codes[:, split].long())
    other = ProductItems(199, 8, ProductSpec(splits=4, codes=16), std=1.0)
    fit_codes(other, table)
    assert torch.equal(one.codes, other.codes)
    assert (one.weight - table)[1:].square().mean() < 0.15 * table.square().mean()


def test_a_table_of_fewer_rows_than_codes_is_kept_whole() -> None:
    table = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    few = ProductItems(2, 8, ProductSpec(splits=4, codes=5), std=1.0)
    fit_codes(few, table)
    torch.testing.assert_close(few.weight[1:], table[1:])


def test_a_table_of_rows_of_their_own_stays_as_it_is(events: Sequences) -> None:
    model = build(SPEC.model_copy(update={"items": None}), 20, seed=1)
    before = model.items.weight.clone()
    assign_codes(model, events)
    assert torch.equal(model.items.weight, before)


def test_rows_that_count_more_are_met_more_nearly() -> None:
    table = torch.randn(301, 8, generator=torch.Generator().manual_seed(4))
    counts = torch.ones(301)
    counts[1:31] = 100.0
    errors = []
    for shares in (None, counts):
        items = ProductItems(300, 8, ProductSpec(splits=2, codes=32), std=1.0)
        fit_codes(items, table, shares)
        errors.append((items.weight.detach() - table).square().mean(dim=1))
    assert errors[1][1:31].mean() < 0.1 * errors[0][1:31].mean()
    assert errors[1][31:].mean() > errors[0][31:].mean()
