"""Rows of the built-in shop that are not as they should be: about one in a hundred, each day's own.

Each is a copy of a good row of its day with one thing wrong, put in at the
place of that row, so that nothing true is lost: a log that was written twice,
a clock in milliseconds, a button without an id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillhouse.data.shop_days import Day
from stillhouse.data.shop_shape import DIRT

__all__ = ["KINDS", "Rows", "with_dirt"]

#: What can be wrong with a row, in the order in which it comes up.
KINDS = ("twice", "no user", "no item", "future", "milliseconds", "unknown item", "bad rating", "unknown event")

_YEAR = 366 * 86_400


@dataclass(frozen=True)
class Rows:
    """One day as the shop delivers it, good rows and bad ones; arrays are [rows].

    Attributes:
        user: int64, or -1 for none.
        item: int64, -1 for none, -2 for an item that the catalogue does not know.
        time: int64, seconds since 1970 where the clock was right.
        event: int8, place in `stillhouse.data.shop_days.EVENTS`, or one beyond it.
        rating: float64, NaN where none was given.
        wrong: int8, 0 for a good row, else 1 + place in `KINDS`.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    event: npt.NDArray[np.int8]
    rating: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.int8]


def with_dirt(day: Day, seed: int, before: int) -> tuple[Rows, int]:
    """Return the day's rows with bad ones among them, and how many bad ones the shop has had by now.

    Args:
        day: the good rows.
        seed: the shop's seed.
        before: bad rows of the days before; kinds take turns.
    """
    rng = np.random.default_rng([seed, 6, day.number])
    spoiled = np.flatnonzero(rng.random(len(day.user)) < DIRT)
    kinds = (before + np.arange(len(spoiled))) % len(KINDS)
    rows = np.insert(np.arange(len(day.user)), spoiled + 1, spoiled)
    bad = spoiled + 1 + np.arange(len(spoiled))
    user, item, time = day.user[rows], day.item[rows], day.time[rows]
    event, rating = day.event[rows], day.rating[rows]
    wrong = np.zeros(len(rows), np.int8)
    wrong[bad] = 1 + kinds
    of = {kind: bad[kinds == place] for place, kind in enumerate(KINDS)}
    user[of["no user"]] = -1
    item[of["no item"]] = -1
    item[of["unknown item"]] = -2
    time[of["future"]] += _YEAR
    time[of["milliseconds"]] *= 1_000
    rating[of["bad rating"]] = 11.0
    event[of["unknown event"]] = 3
    return Rows(user, item, time, event, rating, wrong), before + len(spoiled)
