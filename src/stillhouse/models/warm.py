"""Starting from last night's weights when the catalogue has grown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from stillhouse.data.files import is_none
from stillhouse.data.vocabulary import item_digest
from stillhouse.errors import TrainingError
from stillhouse.models.checkpoint import Header, load, read_header
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import ModelSpec

__all__ = ["load_grown", "require_grown", "why_cold", "widen"]


def why_cold(previous: Path, spec: ModelSpec) -> str | None:
    """Say why ``previous`` cannot be the start of a model of ``spec``; ``None`` where it can.

    A dropout rate may change from night to night; whatever shapes a weight may not.

    Args:
        previous: a checkpoint, or a directory that stands for nothing from last night.
        spec: tonight's architecture.
    """
    if is_none(previous):
        return "there is nothing from last night"
    old, new = (found.model_dump(exclude={"dropout"}) for found in (read_header(previous).spec, spec))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        return "the model changed: " + ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in changed)
    return None


def load_grown(previous: Path, item_ids: Sequence[str], *, seed: int = 0) -> tuple[SequenceModel, Header]:
    """Return last night's model as it is, over tonight's items, in evaluation mode.

    Args:
        previous: a checkpoint.
        item_ids: tonight's item ids by index, ``""`` at 0; last night's come first, in their order.
        seed: what the rows of new items are drawn from.

    Returns:
        the model with `widen`'s rows for the items that are new, and the old header.

    Raises:
        TrainingError: the checkpoint cannot be read, or tonight's items do not begin with its own.
    """
    model, header = load(previous)
    require_grown(header, item_ids, previous)
    generator = torch.Generator().manual_seed(seed)
    widen(model, len(item_ids) - 1, generator)
    return model, header


def require_grown(header: Header, item_ids: Sequence[str], previous: Path) -> None:
    """Refuse items that are not those of ``header``'s model, in their order, and perhaps more behind them.

    Args:
        header: of last night's model.
        item_ids: tonight's item ids by index, ``""`` at 0.
        previous: where the header stands, for the error.

    Raises:
        TrainingError: tonight's items do not begin with the model's.
    """
    kept = item_ids[1 : header.n_items + 1]
    if len(kept) != header.n_items or item_digest(kept) != header.vocabulary:
        raise TrainingError(
            f"tonight's vocabulary must begin with the {header.n_items} items of last night's model, found other "
            f"items ({previous}): start cold, or restore last night's vocabulary"
        )


def widen(model: SequenceModel, n_items: int, generator: torch.Generator) -> None:
    """Give ``model`` rows for the items that are new, in place; every old row stays as it is.

    A new row is the mean of all old rows, and noise of a tenth of their spread. The
    mean carries what all items share (a score that neither buries the item nor lifts
    it over known ones); the noise lets training tell new items apart.

    Args:
        model: on the CPU.
        n_items: new number of items, at least the model's.
        generator: source of the noise.
    """
    added = n_items - model.n_items
    if added == 0:
        return
    old = model.items.weight.detach()
    known = old[1:]
    fresh = known.mean(dim=0) + 0.1 * _spread(known) * torch.randn(added, model.width, generator=generator)
    grown = torch.cat([old, fresh])
    model.items = torch.nn.Embedding(n_items + 1, model.width, padding_idx=0, _weight=grown)
    model.mask = torch.cat([model.mask, torch.zeros(added)])
    model.n_items = n_items


def _spread(rows: Tensor) -> Tensor:
    """Return the standard deviation of each column, 0 where there is one row."""
    return rows.std(dim=0, correction=0)
