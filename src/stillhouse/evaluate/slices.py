"""The same figures for parts of the users and items, where a mean hides trouble."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillhouse.evaluate.metrics import ranking_metrics

__all__ = ["head_items", "slice_masks", "slice_metrics"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def head_items(popularity: NDArray[np.integer], share: float) -> Mask:
    """Return which items are the head: the fewest that together hold ``share`` of the training rows.

    Args:
        popularity: integer [n_items + 1], counts among training rows (0 at index 0).
        share: in (0, 1).

    Returns:
        bool [n_items + 1]; equal counts are taken in order of index; the padding is never head.

    >>> head_items(np.array([0, 6, 3, 1]), 0.5)
    array([False,  True, False, False])
    """
    order = np.argsort(-popularity[1:], kind="stable") + 1
    before = np.cumsum(popularity[order]) - popularity[order]
    head = np.zeros(len(popularity), dtype=bool)
    head[order[before < share * popularity[1:].sum()]] = True
    return head


def slice_masks(
    lengths: Ints, train_length: Ints, items: Ints, popularity: NDArray[np.integer], *, short: int, head_share: float
) -> dict[str, Mask]:
    """Return which target rows belong to each slice.

    Args:
        lengths: int64 [n], events in the row's history.
        train_length: int64 [n], training rows of the row's user; 0 is a new user.
        items: int64 [n], the targets; 0 is an item that the vocabulary lacks.
        popularity: integer [n_items + 1] of training rows.
        short: histories of at most so many events are short.
        head_share: see `head_items`.

    Returns:
        Masks bool [n]: ``short`` and ``long`` histories; ``new_users`` (who take no
        part in training); ``head``, ``tail`` and ``unknown`` items.
    """
    head = head_items(popularity, head_share)[items]
    return {
        "short": lengths <= short,
        "long": lengths > short,
        "new_users": train_length == 0,
        "head": head,
        "tail": ~head & (items > 0),
        "unknown": items == 0,
    }


def slice_metrics(
    masks: dict[str, Mask], users: Ints, ranks: Ints, ks: tuple[int, ...], n_items: int
) -> dict[str, dict[str, float | int | None]]:
    """Return `ranking_metrics` of each slice; an empty slice has None for figures."""
    return {name: ranking_metrics(users[mask], ranks[mask], ks, n_items) for name, mask in masks.items()}
