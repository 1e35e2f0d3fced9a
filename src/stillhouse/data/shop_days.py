"""The built-in shop, day after day: who came, what they looked at, put in the cart and bought."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from stillhouse.data.shop_catalogue import Catalogue
from stillhouse.data.shop_people import People
from stillhouse.data.shop_shape import CART, FIRST_DAY, PURCHASE, Shape

__all__ = ["EVENTS", "Day", "live"]

#: What the numbers in `Day.event` mean.
EVENTS = ("view", "cart", "purchase")

_SECONDS = 86_400
#: Monday to Sunday; the mean is 1.
_WEEK = np.array([0.9, 0.9, 0.9, 0.95, 1.05, 1.2, 1.1])


@dataclass(frozen=True)
class Day:
    """The rows of one day in order of time; all arrays are [rows].

    Attributes:
        number: days since the shop opened.
        user: int64, who.
        item: int64, what.
        time: int64, seconds since 1970 (UTC).
        event: int8, place in `EVENTS`.
        rating: float64 in 1..5, NaN where none was given.
    """

    number: int
    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    event: npt.NDArray[np.int8]
    rating: npt.NDArray[np.float64]


def live(shape: Shape, catalogue: Catalogue) -> Iterator[Day]:
    """Give the days of the shop one after the other, without end.

    Every draw belongs to its day's own generator, and a day depends on earlier
    days alone: how many days are drawn changes none of them.

    Args:
        shape: how large the shop is.
        catalogue: an empty catalogue; it grows as the days are taken.
    """
    people = People(shape, catalogue)
    number = 0
    while True:
        catalogue.open_day(number)
        people.open_day(number)
        yield _day(shape, catalogue, people, number)
        number += 1


def _day(shape: Shape, catalogue: Catalogue, people: People, number: int) -> Day:
    rng = np.random.default_rng([shape.seed, 5, number])
    users, lengths = _visitors(shape, people, number, rng)
    longest = int(lengths[0]) if len(lengths) else 0
    gap = int(np.clip(60_000 // max(longest, 1), 3, 90))
    start = 60 + (rng.random(len(users)) * (_SECONDS - 120 - longest * gap)).astype(np.int64)
    interest = np.zeros(len(users), np.int64)
    seen: list[tuple[npt.NDArray[np.int64], ...]] = []
    for step in range(longest):
        here = int(np.searchsorted(-lengths, -step, side="left"))  # visits longer than `step` come first
        interest, item = people.step(users[:here], interest[:here], step == 0, rng)
        time = start[:here] + step * gap + (rng.random(here) * (gap // 3)).astype(np.int64)
        seen.append((users[:here], item, time))
    nobody = [(np.empty(0, np.int64),) * 3]
    user, item, time = (np.concatenate(parts) for parts in zip(*(seen or nobody), strict=True))
    return _outcome(catalogue, number, user, item, time, gap // 3, rng)


def _visitors(
    shape: Shape, people: People, number: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw who comes and how many items each looks at; the longest visits first."""
    weekday = (FIRST_DAY + timedelta(days=number)).weekday()
    chance = np.minimum(people.activity * shape.busy * _WEEK[weekday], 0.95)
    newcomer = (people.born == number) & (number > 0)
    users = np.flatnonzero((rng.random(len(people)) < chance) | newcomer)
    lengths = 1 + np.floor(np.log1p(-rng.random(len(users))) / np.log1p(-1.0 / shape.steps)).astype(np.int64)
    lengths = np.minimum(lengths, int(shape.steps * 6))
    order = np.argsort(-lengths, kind="stable")
    return users[order], lengths[order]


def _outcome(
    catalogue: Catalogue,
    number: int,
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64],
    pause: int,
    rng: np.random.Generator,
) -> Day:
    """Let some views end in a cart and some carts in a purchase, some purchases in a rating."""
    cart = np.flatnonzero(rng.random(len(user)) < CART)
    bought = cart[rng.random(len(cart)) < PURCHASE]
    rows = np.concatenate([np.arange(len(user)), cart, bought])
    event = np.repeat(np.arange(3, dtype=np.int8), [len(user), len(cart), len(bought)])
    midnight = int((FIRST_DAY + timedelta(days=number)).timestamp())
    moment = midnight + time[rows] + event * pause
    rating = np.full(len(rows), np.nan)
    given = np.rint(catalogue.quality[item[bought]] + 2.0 * rng.random(len(bought)) - 1.0)
    rating[len(user) + len(cart) :] = np.where(rng.random(len(bought)) < 0.5, np.clip(given, 1, 5), np.nan)
    order = np.argsort(moment, kind="stable")
    return Day(number, user[rows][order], item[rows][order], moment[order], event[order], rating[order])
