"""The teacher's item table, which a student can start from: read from the store, cut to a width."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stillhouse.distill.store_format import ITEMS
from stillhouse.errors import StoreError

__all__ = ["read_item_table", "truncated"]


def read_item_table(store: Path, n_items: int, sha256: str | None = None) -> Tensor:
    """Return the teacher's item table from the soft-target store in ``store``.

    Args:
        store: the directory of the store.
        n_items: items of tonight's vocabulary.
        sha256: of the table's file, as the store's header has it; ``None``: not compared.

    Returns:
        float32 [n_items + 1, teacher's width]; row 0 is padding.

    Raises:
        StoreError: the store holds none (the teacher has no such table), or it is damaged or of other items.
    """
    file = store / ITEMS
    try:
        found = file.read_bytes()
        if sha256 is not None and hashlib.sha256(found).hexdigest() != sha256:
            raise StoreError(
                f"{file} must be what the store's header says (SHA-256 {sha256[:12]}…), found other bytes: "
                "export the soft targets again"
            )
        table: Tensor = safetensors.torch.load(found)["items"].float()
    except FileNotFoundError:
        raise StoreError(
            f"the soft-target store must hold the teacher's item table for start: teacher_items, found no {ITEMS} in "
            f"{store} (params.yaml: train_student.distillation.start): set start to fresh, or take a teacher that "
            "scores by an item table and export its soft targets again"
        ) from None
    except (safetensors.SafetensorError, KeyError) as error:
        raise StoreError(f"{file} must be whole, found it damaged ({error}): export the soft targets again") from None
    if table.ndim != 2 or len(table) != n_items + 1 or not bool(table.isfinite().all()):
        raise StoreError(
            f"{file} must hold {n_items + 1} rows of finite numbers, found shape {tuple(table.shape)}: "
            "export the soft targets again"
        )
    return table


def truncated(table: Tensor, width: int) -> Tensor:
    """Return the rows of ``table`` in their ``width`` most important directions: its truncated SVD.

    No other table of that width has inner products nearer to those of ``table`` (least squares).
    A direction's sign is the one that makes its largest weight positive, so that the result is
    one table and not one of many.

    Args:
        table: float [n_items + 1, D], row 0 is padding.
        width: at least 1; beyond D the further columns are 0.

    Returns:
        float32 [n_items + 1, width]; row 0 is zero.

    Source: C. Eckart, G. Young, "The Approximation of One Matrix by Another of Lower Rank", Psychometrika 1936.

    >>> truncated(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), 1).round(decimals=4)
    tensor([[ 0.],
            [ 5.],
            [10.]])
    """
    exact = table.double()
    exact[0] = 0.0
    directions = torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1)[:, :width]
    largest = directions.abs().argmax(dim=0, keepdim=True)
    rows = exact @ (directions * directions.gather(0, largest).sign())
    if rows.shape[1] < width:
        rows = torch.cat([rows, rows.new_zeros((len(rows), width - rows.shape[1]))], dim=1)
    found: Tensor = rows.float()
    return found
