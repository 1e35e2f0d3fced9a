"""The k-core of training rows: users and items that hold each other up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["kcore"]


def kcore(
    users: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    *,
    min_user_events: int,
    min_item_events: int,
    n_users: int,
    protected: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return who stays when users and items with too few rows go, again and again until none has too few.

    The result is the largest set in which every user has ``min_user_events``
    rows with kept items and every item ``min_item_events`` rows of kept users,
    or is protected; it does not depend on the order of rows.

    Args:
        users: user code of each row, [n], in [0, n_users).
        items: item code of each row, [n], in [0, len(protected)).
        min_user_events: rows that a user needs, ≥ 1.
        min_item_events: rows that an item needs, ≥ 1.
        n_users: number of user codes.
        protected: items that stay whatever their rows, bool [n_items].

    Returns:
        kept users, bool [n_users], and kept items, bool [n_items]. Nobody
        without a row is kept, save protected items.

    >>> rows = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2)]
    >>> users, items = (np.array(column, np.int32) for column in zip(*rows))
    >>> core = kcore(users, items, min_user_events=2, min_item_events=2, n_users=3, protected=np.zeros(3, bool))
    >>> [side.tolist() for side in core]
    [[True, True, False], [True, True, False]]
    """
    n_items = len(protected)
    while True:
        kept_users = np.bincount(users, minlength=n_users) >= min_user_events
        kept_items = (np.bincount(items, minlength=n_items) >= min_item_events) | protected
        alive = kept_users[users] & kept_items[items]
        if alive.all():
            return kept_users, kept_items
        users, items = users[alive], items[alive]
