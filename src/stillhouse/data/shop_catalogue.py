"""The built-in shop's catalogue: topics, series of items that follow each other, and what goes with what.

An item belongs to a topic and stands in a series: part 2 follows part 1. A new
item either continues a series that ended or opens one. Beside its follower,
each item *goes with* one other item of its topic, and its maker brought out
another before it. These relations are drawn item by item, so that they have the
rank of a permutation: a model needs room to hold them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillhouse.data.shop_shape import Shape

__all__ = ["MAKERS", "Catalogue"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Mean number of parts of a series.
_PARTS = 6
#: Makers a topic.
MAKERS = 3
#: Exponents of the long tails: appeal of a series within its topic, and of a topic among all.
_APPEAL, _SHARE = 0.8, 1.0
#: Share of the new items that continue a series.
_SEQUELS = 0.5
#: How much less one comes upon part n + 1 by chance than upon part n.
_LATER_PARTS = 0.75


class Catalogue:
    """The items on sale, growing day by day; item i is the i-th ever put on sale.

    Attributes:
        topic: int64 [n], the topic of each item.
        part: int64 [n], 1 for the first of its series.
        series: int64 [n], number of the item's series, in order of appearance.
        follower: int64 [n], the next part, or -1 where there is none yet.
        goes_with: int64 [n], another item of the same topic, or -1.
        maker: int64 [n], who made the item: one of a few makers of its topic.
        same_maker: int64 [n], the item that its maker brought out before, or -1.
        quality: float64 [n] in 1..5, what buyers rate it on average.
        related: int64 [topics, 2], the topics that a taste drifts to.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        rng = np.random.default_rng([shape.seed, 1])
        share = 1.0 / np.arange(1, shape.topics + 1) ** (_SHARE * shape.tail)
        self._share = share / share.sum()
        self._offer = np.sqrt(share) / np.sqrt(share).sum()
        order = rng.permutation(shape.topics)
        self.related = np.empty((shape.topics, 2), np.int64)
        self.related[order, 0], self.related[order, 1] = np.roll(order, 1), np.roll(order, 5)
        self.topic = self.part = self.series = self.follower = self.goes_with = np.empty(0, np.int64)
        self.maker = self.same_maker = np.empty(0, np.int64)
        self.quality = self._appeal = np.empty(0)
        self._last_of_series = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.topic)

    def open_day(self, day: int) -> None:
        """Put the new items of ``day`` on sale; days are opened in order, from 0."""
        rng = np.random.default_rng([self._shape.seed, 2, day])
        new = self._shape.items_on(day) - len(self)
        if not len(self):
            # The first day's items come part after part, so that series stand from the start.
            series = max(self._shape.topics, new // _PARTS)
            self._add(rng, series, sequels=0)
            while len(self) < self._shape.items_on(day):
                self._add(rng, 0, sequels=min(self._shape.items_on(day) - len(self), max(1, int(series * 0.75))))
        elif new:
            sequels = int((rng.random(new) < _SEQUELS).sum())
            self._add(rng, new - sequels, sequels)
        self._index_topics()

    def come_upon(self, topics: Ints, uniform: Floats) -> Ints:
        """Draw an item of each topic by its appeal; ``uniform`` in [0, 1) decides which."""
        low, high = self._bounds[topics], self._bounds[topics + 1]
        place = np.searchsorted(self._cumulative, low + uniform * (high - low), side="right") - 1
        found: Ints = self._by_topic[np.minimum(place, len(self._by_topic) - 1)]
        return found

    def draw_topics(self, uniform: Floats) -> Ints:
        """Draw topics by how many people care for them."""
        return np.minimum(np.searchsorted(np.cumsum(self._share), uniform), self._shape.topics - 1)

    def _add(self, rng: np.random.Generator, openers: int, sequels: int) -> None:
        first, count = len(self), openers + sequels
        ended = rng.permutation(len(self._last_of_series))[:sequels]
        before = self._last_of_series[ended]
        openers = count - len(ended)
        topics = self._topics_of_openers(rng, openers)
        new = np.arange(first, first + count)
        self.topic = np.concatenate([self.topic, self.topic[before], topics])
        self.part = np.concatenate([self.part, self.part[before] + 1, np.ones(openers, np.int64)])
        fresh_series = len(self._last_of_series) + np.arange(openers)
        self.series = np.concatenate([self.series, ended, fresh_series])
        self.follower = np.concatenate([self.follower, np.full(count, -1)])
        self.follower[before] = new[: len(ended)]
        self._last_of_series[ended] = new[: len(ended)]
        self._last_of_series = np.concatenate([self._last_of_series, new[len(ended) :]])
        opener_appeal = (1.0 - rng.random(openers)) ** (-_APPEAL * self._shape.tail)
        self._appeal = np.concatenate([self._appeal, self._appeal[before] * _LATER_PARTS, opener_appeal])
        self.quality = np.concatenate([self.quality, 1.5 + 3.0 * rng.random(count)])
        self.goes_with = np.concatenate([self.goes_with, np.full(count, -1)])
        makers = self.topic[first:] * MAKERS + (rng.random(count) * MAKERS).astype(np.int64)
        self.maker = np.concatenate([self.maker, makers])
        self.same_maker = _previous_alike(self.maker)

    def _topics_of_openers(self, rng: np.random.Generator, openers: int) -> Ints:
        if not len(self):  # every topic has at least one item
            rest = self._offered(rng.random(openers - self._shape.topics))
            return np.concatenate([np.arange(self._shape.topics), rest])
        return self._offered(rng.random(openers))

    def _offered(self, uniform: Floats) -> Ints:
        return np.minimum(np.searchsorted(np.cumsum(self._offer), uniform), self._shape.topics - 1)

    def _index_topics(self) -> None:
        self._by_topic = np.argsort(self.topic, kind="stable")
        self._cumulative = np.concatenate([[0.0], np.cumsum(self._appeal[self._by_topic])])
        starts = np.searchsorted(self.topic[self._by_topic], np.arange(self._shape.topics + 1))
        self._bounds = self._cumulative[starts]
        alone = np.flatnonzero(self.goes_with < 0)
        if len(alone):
            rng = np.random.default_rng([self._shape.seed, 3, len(self)])
            self.goes_with[alone] = self._mates(alone, starts, rng.random(len(alone)))

    def _mates(self, items: Ints, starts: Ints, uniform: Floats) -> Ints:
        low, high = starts[self.topic[items]], starts[self.topic[items] + 1]
        mates = self._by_topic[low + (uniform * (high - low)).astype(np.int64)]
        return np.where(mates == items, -1, mates)


def _previous_alike(kind: Ints) -> Ints:
    """Return for each element the place of the last earlier one that is equal to it, or -1.

    >>> _previous_alike(np.array([7, 8, 7, 7])).tolist()
    [-1, -1, 0, 2]
    """
    order = np.argsort(kind, kind="stable")
    before = np.full(len(kind), -1)
    alike = kind[order[1:]] == kind[order[:-1]]
    before[order[1:][alike]] = order[:-1][alike]
    return before
