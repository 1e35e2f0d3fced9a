"""Starting from last night's weights when the catalogue has grown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.data.files import is_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import item_digest
from stillhouse.errors import TrainingError
from stillhouse.models.checkpoint import Header, load, read_header
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.quantised import trained
from stillhouse.params.model import TeacherSpec

__all__ = ["load_grown", "neighbours", "require_grown", "why_cold", "widen"]

Ints = npt.NDArray[np.int64]

#: What may change from night to night, since it shapes no weight.
_FREE = {"dropout", "mask_share", "last_share", "weights"}
_NOBODY = (np.empty(0, np.int64), np.empty(0, np.int64))


def why_cold(previous: Path, spec: TeacherSpec) -> str | None:
    """Say why ``previous`` cannot be the start of a model of ``spec``; ``None`` where it can.

    Rates of dropout and of masking and the precision that weights are served in may change from night to night;
    anything else is another model, though no weight's shape may tell.

    Args:
        previous: a checkpoint, a directory that stands for nothing from last night, or that of a
            member which last night's model did not have.
        spec: tonight's architecture.
    """
    if not previous.exists() or is_none(previous):
        return "there is nothing from last night"
    old, new = (found.model_dump(exclude=_FREE) for found in (read_header(previous).spec, spec))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        return "the model changed: " + ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in changed)
    return None


def load_grown(
    previous: Path, item_ids: Sequence[str], sequences: Sequences | None = None, *, seed: int = 0
) -> tuple[SequenceModel, Header]:
    """Return last night's model as it is, over tonight's items, in evaluation mode.

    Args:
        previous: a checkpoint.
        item_ids: tonight's item ids by index, ``""`` at 0; last night's come first, in their order.
        sequences: tonight's: what stood next to a new item; ``None``: nothing is known of it.
        seed: what the noise in the rows of new items is drawn from.

    Returns:
        the model with `widen`'s rows for the items that are new, and the old header.

    Raises:
        TrainingError: the checkpoint cannot be read, is no model that is trained by steps, or tonight's
            items do not begin with its own.
    """
    model, header = load(previous)
    if not isinstance(model, SequenceModel):
        raise TrainingError(
            f"only a model that is trained by steps can start from last night's weights, found kind "
            f"{header.spec.kind} ({previous}): fit it anew"
        )
    require_grown(header, item_ids, previous)
    grown = len(item_ids) > header.n_items + 1
    near = neighbours(sequences, header.n_items) if grown and sequences is not None else _NOBODY
    widen(model, len(item_ids) - 1, near, torch.Generator().manual_seed(seed))
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
            f"items ({previous}): start cold (stillhouse run --cold), or restore last night's vocabulary"
        )


def neighbours(sequences: Sequences, known: int) -> tuple[Ints, Ints]:
    """Return which known items stood right before or right after a new one in somebody's training rows.

    Args:
        sequences: tonight's.
        known: items 1..known are last night's, those above it are new.

    Returns:
        new items int64 [P] and, beside each, a known one int64 [P]; a pair stands as often as it occurs.
    """
    offsets = np.asarray(sequences.offsets, np.int64)
    user = np.repeat(np.arange(sequences.n_users), np.diff(offsets))
    step = np.arange(sequences.n_events) - offsets[user]
    second = np.flatnonzero((step > 0) & (step < np.asarray(sequences.train_length, np.int64)[user]))
    items = np.asarray(sequences.items, np.int64)
    before, after = items[second - 1], items[second]
    one, other = np.concatenate([after, before]), np.concatenate([before, after])
    chosen = (one > known) & (other <= known)
    return one[chosen], other[chosen]


def widen(model: SequenceModel, n_items: int, near: tuple[Ints, Ints], generator: torch.Generator) -> None:
    """Give ``model`` rows for the items that are new, in place; every old row stays as it is.

    A new row is the mean of the rows that stood next to the item, with the mean of all
    rows counted once among them, and noise of a tenth of the rows' spread. So an item is
    near its like before it is trained, an item that nobody knows much of is near the
    middle, and training can tell new items apart. Measured (docs/warm-nights.md), this
    ranks new items better than the middle does, before training and after.

    Source: the start of new items by what they interacted with is that of G. Lee, S. Kang,
    W. Kweon, H. Yu, "Continual Collaborative Distillation for Recommender System", KDD 2024,
    with the sequence's neighbours in place of its graph's.

    Args:
        model: on the CPU.
        n_items: new number of items, at least the model's.
        near: of `neighbours`.
        generator: source of the noise.
    """
    added = n_items - model.n_items
    if added == 0:
        return
    table = model.items if isinstance(model.items, ProductItems) else trained(model.items, "weight")
    old = (table.weight if isinstance(table, ProductItems) else table).detach()
    known = old[1:]
    fresh = _means(old, near, added) + 0.1 * _spread(known) * torch.randn(added, model.width, generator=generator)
    if isinstance(table, ProductItems):
        table.codes = torch.cat([table.codes, _codes(table, fresh)])
    else:
        table.data = torch.cat([old, fresh])
        model.items.num_embeddings = n_items + 1
    model.mask = torch.cat([model.mask, torch.zeros(added)])
    model.n_items = n_items


def _means(old: Tensor, near: tuple[Ints, Ints], added: int) -> Tensor:
    """Return the mean of each new item's neighbours, the mean of all known rows counted once, float [added, width]."""
    new, known = (torch.from_numpy(side) for side in near)
    place = new - len(old)
    middle = old[1:].mean(dim=0)
    sums = torch.zeros(added, old.shape[1]).index_add_(0, place, old[known])
    counts = torch.bincount(place, minlength=added).unsqueeze(1)
    return (sums + middle) / (counts + 1)


def _codes(table: ProductItems, rows: Tensor) -> Tensor:
    """Return the codes whose centroids stand nearest to each part of ``rows``, uint8 [n, splits]."""
    splits, _, part = table.centroids.shape
    parts = rows.view(len(rows), splits, part).transpose(0, 1)
    return torch.cdist(parts, table.centroids.detach()).argmin(dim=2).T.to(torch.uint8)


def _spread(rows: Tensor) -> Tensor:
    """Return the standard deviation of each column, 0 where there is one row."""
    return rows.std(dim=0, correction=0)
