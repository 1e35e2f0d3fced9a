"""How large a shop is, and how busy: what follows from a `ShopSpec` before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from stillhouse.errors import ParamsError
from stillhouse.params.source import ShopSpec

__all__ = ["DAYS", "FIRST_DAY", "Shape", "activity", "days_before", "first_as_of", "shape_of"]

#: The shop opens on this day (UTC).
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)

#: Days before the first night; the sizes below are reached at their end, and the shop goes on.
DAYS = 60

#: Share of the users and of the items that are there when the shop opens.
_FIRST_USERS = 0.6
_FIRST_ITEMS = 0.7

#: Of the views, how many lead to a cart; of the carts, to a purchase.
CART, PURCHASE = 0.36, 0.6
#: Rows added that are not as they should be, as a share of the good ones.
DIRT = 0.011

_SIZES = {
    "tiny": (120, 80, 3_000),
    "default": (2_000, 1_000, 70_000),
    "large": (20_000, 5_000, 1_000_000),
    "huge": (100_000, 20_000, 10_000_000),
}
_MOST_STEPS_A_DAY = 5_000


@dataclass(frozen=True)
class Shape:
    """The numbers that a shop is drawn from.

    Attributes:
        seed: the shop's own seed.
        users: users after sixty days; `users_on` says how many on each day.
        items: items after sixty days.
        topics: what a taste is made of; an item belongs to one.
        busy: probability that a user of activity 1 comes on a day.
        steps: mean number of items that a user looks at on a day.
        tail: 1 for long tails of appeal; 0 would make all topics and series alike.
        stay: chance that the next item is of the same interest as the last.
        habit: chance that someone does as their kind does.
        stray: chance of each thing that the other kinds do.
    """

    seed: int
    users: int
    items: int
    topics: int
    busy: float
    steps: float
    tail: float
    stay: float
    habit: float
    stray: float

    def users_on(self, day: int) -> int:
        """Return how many users have come by the end of ``day`` (0-based)."""
        return _grown(self.users, _FIRST_USERS, day)

    def items_on(self, day: int) -> int:
        """Return how many items are on sale on ``day`` (0-based)."""
        return _grown(self.items, _FIRST_ITEMS, day)


def shape_of(spec: ShopSpec) -> Shape:
    """Return the shape of the shop that ``spec`` asks for.

    Raises:
        ParamsError: more rows a user and day than a day has room for.
    """
    users, items, rows = _SIZES[spec.size]
    users, items, rows = spec.users or users, spec.items or items, spec.rows or rows
    seen = rows / ((1 + CART + CART * PURCHASE) * (1 + DIRT))
    alive = sum(_grown(users, _FIRST_USERS, day) for day in range(DAYS))
    first_visits = users * (1 - _FIRST_USERS) * 4.0  # newcomers come on their first day, however idle they are
    a_day = max(seen - first_visits, 0.2 * seen) / alive
    if a_day > _MOST_STEPS_A_DAY:
        raise ParamsError(
            f"rows must be at most {_MOST_STEPS_A_DAY} views a user and day, "
            f"got {rows} rows for {users} users (source.shop): raise users or lower rows"
        )
    steps = max(4.0, a_day / 0.4)
    topics = int(np.clip(items // 25, 8, 400))
    # A tiny shop has too few rows to tell people apart by half: its people are plain.
    manners = (0.3, 0.7, 0.75, 0.02) if spec.size == "tiny" else (1.0, 0.35, 0.62, 0.06)
    return Shape(spec.seed, users, items, topics, _busy(a_day / steps), steps, *manners)


def activity(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn uniform numbers into users' activities: mean 1, most below it, a few far above.

    >>> activity(np.array([0.0, 0.5])).round(2).tolist()
    [0.2, 0.75]
    """
    return 0.2 - 0.8 * np.log1p(-uniform)


def days_before(as_of: datetime) -> int:
    """Return how many whole days of the shop lie before ``as_of``; the shop delivers at midnight.

    >>> days_before(FIRST_DAY + timedelta(days=2, hours=23))
    2
    """
    moment = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    return max(0, (moment - FIRST_DAY) // timedelta(days=1))


def first_as_of(spec: ShopSpec) -> datetime:
    """Return when the first night of the shop is: sixty days after it opened, at midnight UTC."""
    del spec  # every size opens on the same day
    return FIRST_DAY + timedelta(days=DAYS)


def _grown(final: int, first: float, day: int) -> int:
    start = round(final * first)
    return start + (final - start) * (day + 1) // DAYS


def _busy(wanted: float) -> float:
    """Find the daily probability at activity 1 whose mean over all activities is ``wanted``."""
    activities = activity((np.arange(2000) + 0.5) / 2000)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * activities, 0.95).mean() < wanted else (low, middle)
    return high
