"""One model's figures on both protocols, from what it scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.sequences import Sequences, Split
from stillhouse.evaluate.metrics import coverage, popularity_bias, ranking_metrics
from stillhouse.evaluate.scoring import History, Scored
from stillhouse.evaluate.slices import slice_masks, slice_metrics

__all__ = ["Catalogue", "protocol_metrics", "protocol_slices", "target_masks"]

Ints = NDArray[np.int64]
Figures = dict[str, float | int | None]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What the figures need to know beside the ranks."""

    sequences: Sequences
    popularity: NDArray[np.int64]
    """Training rows of each item, int64 [n_items + 1]."""
    ks: tuple[int, ...]
    short_history: int
    head_share: float


def protocol_metrics(scored: Scored, catalogue: Catalogue) -> Figures | None:
    """Return a protocol's figures: ranking, coverage and popularity bias at each k; None without targets."""
    if not len(scored.ranks):
        return None
    sequences, popularity = catalogue.sequences, catalogue.popularity
    found = ranking_metrics(scored.users, scored.ranks, catalogue.ks, sequences.n_items)
    start = np.asarray(sequences.offsets)[scored.users]
    profile = History(sequences.items, start, start + scored.lengths).means(popularity.astype(np.float64))
    for k in catalogue.ks:
        top = scored.top[:, :k]
        found[f"coverage_at_{k}"] = coverage(top, sequences.n_items)
        found[f"popularity_bias_at_{k}"] = popularity_bias(top, profile, scored.users, popularity)
    return found


def protocol_slices(scored: Scored, catalogue: Catalogue) -> dict[str, Figures]:
    """Return a protocol's ranking figures for each slice of users and items."""
    masks = _masks(scored.users, scored.lengths, scored.items, catalogue)
    return slice_metrics(masks, scored.users, scored.ranks, catalogue.ks, catalogue.sequences.n_items)


def target_masks(
    split: Split, catalogue: Catalogue, categories: Sequence[str | None] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Return which targets of ``split`` belong to each slice: bool [n], in the order of its ranks.

    Args:
        split: whose targets.
        catalogue: as for `protocol_slices`.
        categories: by item index, several with ``|`` between them; each becomes the slice ``category NAME`` of all
            items that are of it.
    """
    targets = np.asarray(catalogue.sequences.targets(split), dtype=np.int64)
    masks = _masks(targets[:, 0], targets[:, 1], targets[:, 2], catalogue)
    if categories is not None:
        names = np.array([name or "" for name in categories], dtype=object)[targets[:, 2]]
        distinct, at = np.unique(names, return_inverse=True)
        of_each = [set(name.split("|")) - {""} for name in distinct]
        for category in sorted(set[str]().union(*of_each)):
            masks[f"category {category}"] = np.array([category in some for some in of_each])[at]
    return masks


def _masks(users: Ints, lengths: Ints, items: Ints, catalogue: Catalogue) -> dict[str, NDArray[np.bool_]]:
    return slice_masks(
        lengths,
        np.asarray(catalogue.sequences.train_length, dtype=np.int64)[users],
        items,
        catalogue.popularity,
        short=catalogue.short_history,
        head_share=catalogue.head_share,
    )
