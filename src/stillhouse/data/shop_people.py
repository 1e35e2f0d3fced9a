"""The built-in shop's users: what they care for, how it drifts, and which item each looks at next.

A user has three interests (topics) and keeps a place in each: the item looked
at last. A visit moves between the interests and goes on where each was left,
so the next item depends on an item some steps back. Three kinds of people choose
differently: some take the next part of a series, some what goes with the item,
some another of its maker's; the rest of the time all come upon something of the
topic by its appeal. Which kind someone is shows in the history alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillhouse.data.shop_catalogue import Catalogue
from stillhouse.data.shop_shape import Shape, activity

__all__ = ["People"]

Ints = npt.NDArray[np.int64]

INTERESTS = 3
#: Chance of each interest, in order, when a visit turns to one.
_WEIGHTS = np.array([0.5, 0.3, 0.2])
#: Kinds of people: those who take the next part, what goes with it, its maker's other item.
_KINDS = 3
#: Chance that a user exchanges one interest for a related one on a day.
_DRIFT = 0.02
#: Chance to look again at the item looked at last of an interest.
_AGAIN = 0.03


class People:
    """The users so far and where each stands; user u is the u-th who ever came.

    Attributes:
        activity: float64 [n], mean 1: how often a user comes.
        interests: int64 [n, 3], topics.
        place: int64 [n, 3], the item looked at last of each interest, or -1.
        habit: int64 [n], the kind of person: 0 series, 1 what goes together, 2 makers.
        born: int64 [n], the day on which the user first came.
    """

    def __init__(self, shape: Shape, catalogue: Catalogue) -> None:
        self._shape, self._catalogue = shape, catalogue
        self._habits = np.full((_KINDS, _KINDS), shape.stray) + np.eye(_KINDS) * (shape.habit - shape.stray)
        self.activity = np.empty(0)
        self.interests = self.place = np.empty((0, INTERESTS), np.int64)
        self.habit = self.born = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.activity)

    def open_day(self, day: int) -> None:
        """Let tastes drift and the new users of ``day`` come in."""
        rng = np.random.default_rng([self._shape.seed, 4, day])
        moved = np.flatnonzero(rng.random(len(self)) < _DRIFT)
        which = (rng.random(len(moved)) * INTERESTS).astype(np.int64)
        where = (rng.random(len(moved)) * 2).astype(np.int64)
        self.interests[moved, which] = self._catalogue.related[self.interests[moved, which], where]
        self.place[moved, which] = -1
        self._add(rng, self._shape.users_on(day) - len(self), day)

    def step(self, users: Ints, interest: Ints, first: bool, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Let each user look at one more item.

        Args:
            users: int64 [n], distinct rows.
            interest: int64 [n], the interest each looked at last on this visit.
            first: whether this is the first item of the visit.
            rng: the day's own generator.

        Returns:
            The interest (int64 [n], 0..2) and the item (int64 [n]) that each looks at now.
        """
        turn, which, choice, chance = rng.random((4, len(users)))
        picked = np.searchsorted(np.cumsum(_WEIGHTS)[:-1], which, side="right")
        interest = picked if first else np.where(turn < self._shape.stay, interest, picked)
        place = self.place[users, interest]
        by_habit = self._habits[self.habit[users]]
        again, part, mate, maker = np.cumsum(np.column_stack([np.full(len(users), _AGAIN), by_habit]), axis=1).T
        known = place >= 0
        item = np.full(len(users), -1)
        item = np.where(known & (choice < maker), self._catalogue.same_maker[place], item)
        item = np.where(known & (choice < mate), self._catalogue.goes_with[place], item)
        item = np.where(known & (choice < part), self._catalogue.follower[place], item)
        item = np.where(known & (choice < again), place, item)
        found = self._catalogue.come_upon(self.interests[users, interest], chance)
        item = np.where(item < 0, found, item)
        self.place[users, interest] = item
        return interest, item

    def _add(self, rng: np.random.Generator, count: int, day: int) -> None:
        topics = self._catalogue.draw_topics(rng.random((count, INTERESTS)))
        self.activity = np.concatenate([self.activity, activity(rng.random(count))])
        self.interests = np.concatenate([self.interests, topics])
        self.place = np.concatenate([self.place, np.full((count, INTERESTS), -1)])
        self.habit = np.concatenate([self.habit, (rng.random(count) * _KINDS).astype(np.int64)])
        self.born = np.concatenate([self.born, np.full(count, day)])
