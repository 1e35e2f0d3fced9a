from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from stillhouse.distill.start import ITEMS, read_item_table, start_from, truncated
from stillhouse.errors import StoreError
from stillhouse.models.build import build
from stillhouse.params.model import GruSpec

TABLE = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 6))).float()
TABLE[0] = 0.0


def student(width: int):
    return build(GruSpec(kind="gru", width=width, blocks=1, length=5, dropout=0.0), 8, seed=3)


def write(folder: Path, **tensors: torch.Tensor) -> Path:
    (folder / ITEMS).write_bytes(safetensors.torch.save(tensors))
    return folder


@pytest.mark.parametrize("width", [1, 3, 6])
def test_inner_products_of_the_cut_table_are_the_nearest_of_its_rank(width):
    rows = truncated(TABLE, width).numpy()
    values, directions = np.linalg.eigh(TABLE.numpy() @ TABLE.numpy().T)
    best = directions[:, -width:] * values[-width:] @ directions[:, -width:].T
    np.testing.assert_allclose(rows @ rows.T, best, atol=1e-5)
    assert not rows[0].any()


def test_the_cut_is_one_table_whatever_sign_its_directions_come_with():
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    assert truncated(TABLE, 4).equal(truncated(TABLE, 4))
    assert (truncated(TABLE, 4) @ truncated(TABLE, 4).T).allclose(
        truncated(TABLE @ turned, 4) @ truncated(TABLE @ turned, 4).T, atol=1e-4
    )


def test_columns_beyond_the_table_are_zero():
    wide = truncated(TABLE, 8)
    assert wide.shape == (9, 8)
    assert not wide[:, 6:].any()


def test_a_student_starts_with_the_teachers_items_and_fresh_weights_otherwise():
    model, fresh = student(4), student(4)
    start_from(model, TABLE)
    assert torch.equal(model.items.weight, truncated(TABLE, 4))
    others = [name for name in model.state_dict() if name != "items.weight"]
    assert all(torch.equal(model.state_dict()[name], fresh.state_dict()[name]) for name in others)


def test_a_student_wider_than_its_teacher_keeps_what_was_drawn_in_the_other_columns():
    model, fresh = student(8), student(8)
    start_from(model, TABLE)
    assert torch.equal(model.items.weight[:, :6], truncated(TABLE, 6))
    assert torch.equal(model.items.weight[1:, 6:], fresh.items.weight[1:, 6:])
    assert not model.items.weight[0].any()


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_items_that_share_parts_start_from_the_parts_nearest_to_the_cut_table(weights):
    spec = GruSpec(
        kind="gru", width=4, blocks=1, length=5, dropout=0.0, weights=weights, items={"splits": 2, "codes": 8}
    )
    model = build(spec, 8, seed=3)
    start_from(model, TABLE)
    rows, cut = model.items.weight, truncated(TABLE, 4)
    torch.testing.assert_close(rows @ rows.T, cut @ cut.T, atol=0.2, rtol=0.05)


def test_a_student_that_rounds_starts_from_the_values_behind():
    spec = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0, weights="int8")
    model = build(spec, 8, seed=3)
    start_from(model, TABLE)
    assert torch.equal(model.state_dict()["items.weight"], truncated(TABLE, 4))


def test_the_table_is_read_as_it_was_written(tmp_path):
    assert torch.equal(read_item_table(write(tmp_path, items=TABLE), 8), TABLE)
    assert torch.equal(read_item_table(write(tmp_path, items=TABLE.half()), 8), TABLE.half().float())


def test_a_missing_damaged_or_foreign_table_is_refused_in_one_line(tmp_path):
    with pytest.raises(StoreError, match="set start to fresh") as missing:
        read_item_table(tmp_path, 8)
    assert "\n" not in str(missing.value)
    write(tmp_path, items=TABLE)
    with pytest.raises(StoreError, match="must hold 10 rows of finite numbers, found shape"):
        read_item_table(tmp_path, 9)
    write(tmp_path, items=TABLE * torch.nan)
    with pytest.raises(StoreError, match="finite"):
        read_item_table(tmp_path, 8)
    write(tmp_path, other=TABLE)
    with pytest.raises(StoreError, match="damaged"):
        read_item_table(tmp_path, 8)
    (tmp_path / ITEMS).write_bytes(b"cut off")
    with pytest.raises(StoreError, match="damaged"):
        read_item_table(tmp_path, 8)
