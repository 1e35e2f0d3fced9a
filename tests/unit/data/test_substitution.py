"""Copies of histories: whose they are, what is substituted, and what never is."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from stillhouse.data.sequences import Sequences
from stillhouse.data.substitution import origin, with_copies

#: Everybody walks around a ring of 40 items, twelve steps from a place of their own.
RING = [[(start + step) % 40 + 1 for step in range(12)] for start in range(0, 60, 3)]


@pytest.fixture
def ring(make_sequences):
    return Sequences.open(make_sequences(RING)[1])


def test_no_copies_are_the_events_themselves(ring):
    assert with_copies(ring, 0, 0.5, 1) is ring


def test_a_copy_is_a_user_of_its_own_with_the_training_rows_of_its_original(ring):
    more = with_copies(ring, 2, 0.3, 1)
    n = ring.n_users
    assert more.n_users == 3 * n
    assert_array_equal(origin(np.arange(3 * n), n), np.tile(np.arange(n), 3))
    assert_array_equal(more.train_length, np.tile(ring.train_length, 3))
    for user in range(n):
        assert_array_equal(more.history(user, 12), ring.history(user, 12))
    assert_array_equal(np.diff(more.offsets)[n:], np.tile(ring.train_length, 2), "what is held out is in no copy")
    assert more.offsets[-1] == more.n_events == len(more.times) == len(more.weights)
    assert not more.weights[ring.n_events :].any()
    assert_array_equal(more.weights[: ring.n_events], ring.weights)
    for split in ("valid", "test", "window"):
        assert_array_equal(more.targets(split), ring.targets(split))
    assert (more.items.dtype, more.offsets.dtype) == (ring.items.dtype, ring.offsets.dtype)


def pairs(sequences, users, originals):
    """(original, copy) of every event of the training rows of ``users``."""
    for user, original in zip(users, originals, strict=True):
        length = int(sequences.train_length[user])
        yield sequences.history(original, length), sequences.history(user, length)


def test_a_substitute_stood_beside_the_item_and_is_not_in_the_history(ring):
    n = ring.n_users
    more = with_copies(ring, 3, 0.5, 1)
    changed = 0
    for original, copy in pairs(more, range(n, 4 * n), origin(np.arange(n, 4 * n), n)):
        other = original != copy
        changed += other.sum()
        assert_array_equal(np.abs(original[other] - copy[other]) % 38, 1)  # a neighbour on the ring, 40 beside 1
        assert not np.isin(copy[other], original).any()
        assert len(np.unique(copy)) == len(copy), "no item twice"
    assert changed > 0


def test_about_the_asked_share_is_drawn_where_there_is_enough_to_draw_from(make_sequences):
    random = np.random.default_rng(0)
    long = [list(random.choice(500, 30, replace=False) + 1) for _ in range(200)]
    events = Sequences.open(make_sequences(long, n_items=500)[1])
    more = with_copies(events, 1, 0.2, 7)
    n = events.n_users
    found = np.mean([np.mean(a != b) for a, b in pairs(more, range(n, 2 * n), range(n))])
    assert 0.16 < found < 0.2


def test_every_share_and_seed_gives_other_copies_and_the_same_ones_the_same(ring):
    def copied(*how):
        return with_copies(ring, *how).items[ring.n_events :].tolist()

    assert copied(1, 0.5, 1) == copied(1, 0.5, 1) == copied(2, 0.5, 1)[: len(copied(1, 0.5, 1))]
    assert copied(1, 0.5, 1) != copied(1, 0.5, 2)
    assert copied(1, 0.5, 1) != copied(1, 0.9, 1)
    first, second = np.split(np.array(copied(2, 0.5, 1)), 2)
    assert not np.array_equal(first, second)


def test_users_of_one_event_and_items_that_stand_alone_stay_as_they_are(make_sequences):
    events = Sequences.open(make_sequences([[1], [2, 3, 4], [5], []], n_items=5)[1])
    more = with_copies(events, 1, 1.0, 1)
    assert more.history(4, 1).tolist() == [1]
    assert more.train_length[4:].tolist() == events.train_length.tolist()
