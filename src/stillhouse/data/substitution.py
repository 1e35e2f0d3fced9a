"""Copies of histories in which some events are others, for a teacher to speak of.

A copy is nobody's: what stands in it was never taken in that order, so that no label is to be learnt from it. A teacher
has an opinion on it all the same, and a student that hears it hears more of the teacher than people's own histories
bring out. The store says how copies were made, so that teacher and student read the same ones.

Source: substitution by items that go together, as in CoSeRec (Liu et al., arXiv:2108.06479), which learns from such
copies by contrast; here a teacher labels them. An item's substitute is one that stood next to it in somebody's training
rows, drawn as often as it did.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.sequences import Sequences

__all__ = ["origin", "with_copies"]

Int = NDArray[np.int64]


def with_copies(events: Sequences, copies: int, share: float, seed: int) -> Sequences:
    """Return ``events`` with ``copies`` further users for each: the training rows once more, some items substituted.

    Copy c (from 1) of user u is user c · n_users + u. No copy holds an item twice that its original did not, a
    substitute is never one of the original's own, and every event of a copy has weight 0. Held-out targets stay what
    they are: no copy has any.

    Args:
        events: the real histories.
        copies: further users for each, at least 0; 0 returns ``events``.
        share: how likely an event is to be substituted, in [0, 1]. Fewer are: a draw that the history holds already,
            or that this copy has drawn before, is left out.
        seed: of the draws; copy c depends on it, on c and on ``events`` alone.
    """
    if copies == 0:
        return events
    length = np.asarray(events.train_length, np.int64)
    starts = np.asarray(events.offsets, np.int64)[:-1]
    users = np.repeat(np.arange(events.n_users), length)
    own = starts[users] + np.arange(len(users)) - (np.cumsum(length) - length)[users]
    items = np.array(events.items, np.int64)[own]
    drawn = [_substituted(items, users, events.n_items, share, seed, number) for number in range(1, copies + 1)]
    ends = np.cumsum(np.tile(length, copies)) + events.n_events
    return replace(
        events,
        items=np.concatenate([events.items, *drawn]).astype(np.int32),
        times=np.concatenate([events.times, *[np.array(events.times)[own]] * copies]),
        weights=np.concatenate([events.weights, np.zeros(copies * len(own), np.float32)]),
        offsets=np.concatenate([events.offsets, ends]),
        train_length=np.tile(np.asarray(events.train_length), copies + 1),
    )


def origin(users: NDArray[np.integer[Any]], n_users: int) -> Int:
    """Return whose history each of ``users`` is, or is a copy of.

    Args:
        users: user indices, those of copies among them.
        n_users: how many real ones there are.

    >>> origin(np.array([1, 4, 7]), 3).tolist()
    [1, 1, 1]
    """
    return np.asarray(users, np.int64) % n_users


def _substituted(items: Int, users: Int, n_items: int, share: float, seed: int, number: int) -> Int:
    """Return ``items``, the training rows of ``users`` one after another, with some of them substituted."""
    random = np.random.default_rng([seed, number])
    places = np.flatnonzero(random.random(len(items)) < share)
    if not len(places):
        return items
    drawn = _neighbours(items, users, items[places], random)
    pairs = users * (n_items + 1) + items
    wanted = users[places] * (n_items + 1) + drawn
    _, first = np.unique(wanted, return_index=True)
    new = np.zeros(len(places), bool)
    new[first] = True
    new &= (drawn > 0) & ~np.isin(wanted, pairs)
    found = items.copy()
    found[places[new]] = drawn[new]
    return found


def _neighbours(items: Int, users: Int, of: Int, random: np.random.Generator) -> Int:
    """Return for each item of ``of`` one that stands beside it in ``items``, at a random place; 0 for none."""
    by_item = np.argsort(items, kind="stable")
    sorted_items = items[by_item]
    begin, end = np.searchsorted(sorted_items, of, "left"), np.searchsorted(sorted_items, of, "right")
    place = by_item[random.integers(begin, end)]
    step = random.choice(np.array([-1, 1]), len(place))
    found = np.zeros(len(place), np.int64)
    for way in (step, -step):  # at the end of a history there is one side alone
        beside = place + way
        inside = (beside >= 0) & (beside < len(items))
        beside = np.where(inside, beside, place)
        same = inside & (users[beside] == users[place]) & (found == 0)
        found[same] = items[beside[same]]
    return found
