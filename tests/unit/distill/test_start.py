from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from stillhouse.distill.start import ITEMS, read_item_table, truncated
from stillhouse.errors import StoreError

TABLE = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 6))).float()
TABLE[0] = 0.0


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
    write(tmp_path, items=TABLE)
    whole = hashlib.sha256((tmp_path / ITEMS).read_bytes()).hexdigest()
    assert torch.equal(read_item_table(tmp_path, 8, whole), TABLE)
    write(tmp_path, items=TABLE + 1.0)
    with pytest.raises(StoreError, match="found other bytes: export the soft targets again"):
        read_item_table(tmp_path, 8, whole)
    (tmp_path / ITEMS).write_bytes(b"cut off")
    with pytest.raises(StoreError, match="damaged"):
        read_item_table(tmp_path, 8)
