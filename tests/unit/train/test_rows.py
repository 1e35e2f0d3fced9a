"""Training batches: the right events, each once an epoch, in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.sequences import Sequences
from stillhouse.errors import TrainingError
from stillhouse.train.rows import TrainingRows

Make = Callable[..., tuple[Path, Path]]


def test_a_batch_holds_the_last_training_events_and_what_followed_each(make_sequences: Make) -> None:
    _, folder = make_sequences(
        [[1, 2, 3, 4, 5, 6, 7], [3, 1], [2, 4, 6, 5]],
        weights=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [1.0, 1.0], [0.9, 0.8, 0.7, 0.6]],
    )
    rows = TrainingRows(Sequences.open(folder), length=3)
    assert rows.users.tolist() == [0, 2]  # user 1 has a single training event
    histories, batch = rows.batch(np.array([1, 0]))
    assert histories.tolist() == [[2, 0, 0], [2, 3, 4]]  # of user 0: events 0..4 train, inputs end at 3
    assert batch.targets.tolist() == [4, 3, 4, 5]
    assert batch.weights.tolist() == pytest.approx([0.8, 0.3, 0.4, 0.5])
    assert batch.users.tolist() == [2, 0, 0, 0]
    assert batch.steps.tolist() == [0, 1, 2, 3]
    assert [known.tolist() for known in batch.places] == [batch.users.tolist(), batch.steps.tolist()]
    assert [known.tolist() for known in batch.part(1, 3).places] == [batch.users[1:3].tolist(), [1, 2]]


def test_no_held_out_event_is_ever_an_input_or_a_target(make_sequences: Make) -> None:
    histories = [list(range(1 + user, 9 + user)) for user in range(6)]
    _, folder = make_sequences(histories, window=2)
    inputs, batch = TrainingRows(Sequences.open(folder), length=50).batch(np.arange(6))
    for user, history in enumerate(histories):
        assert set(inputs[user].tolist()) <= {0, *history[:3]}
        assert set(batch.targets[batch.users == user].tolist()) <= set(history[1:4])


def test_every_row_stands_in_one_batch_of_an_epoch(make_sequences: Make) -> None:
    rows = _many(make_sequences)
    plan = rows.plan(seed=1, epoch=0, batch_size=7)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(rows)))
    assert {len(batch) for batch in plan} <= {7, len(rows) % 7}
    assert len(plan) == -(-len(rows) // 7)


def test_the_order_depends_on_seed_and_epoch_alone(make_sequences: Make) -> None:
    rows = _many(make_sequences)

    def plan(seed: int, epoch: int) -> list[int]:
        return np.concatenate(rows.plan(seed, epoch, 7)).tolist()

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1)
    assert plan(1, 0) != plan(2, 0)


def test_rows_of_similar_length_share_a_batch(make_sequences: Make) -> None:
    rows = _many(make_sequences)
    spread = [np.ptp(rows.counts[batch]) for batch in rows.plan(seed=1, epoch=0, batch_size=7)]
    assert np.mean(spread) < np.ptp(rows.counts) / 4


def test_users_without_two_training_events_are_no_training(make_sequences: Make) -> None:
    _, folder = make_sequences([[1, 2, 3], [2, 1]])
    with pytest.raises(TrainingError, match="at least one user with two training events, found none among 2 users"):
        TrainingRows(Sequences.open(folder), length=5)


def _many(make_sequences: Make) -> TrainingRows:
    _, folder = make_sequences([[1 + step % 9 for step in range(4 + user % 30)] for user in range(100)])
    return TrainingRows(Sequences.open(folder), length=50)


LONG = [list(range(1, 13)), [3, 1, 2], [5, 6, 7, 8, 9, 10, 11]]


def test_all_windows_hold_every_training_position_once(make_sequences: Make) -> None:
    _, folder = make_sequences(LONG)
    sequences = Sequences.open(folder)
    rows = TrainingRows(sequences, length=4, windows="all")
    _, batch = rows.batch(np.arange(len(rows)))
    found = sorted(zip(batch.users.tolist(), batch.steps.tolist(), strict=True))
    trained = [(user, step) for user, n in enumerate(sequences.train_length) for step in range(n - 1)]
    assert found == trained
    assert max(rows.counts) == 4
    inputs = {user: sequences.history(user, 12).tolist() for user in range(3)}
    expected = [inputs[user][step + 1] for user, step in zip(batch.users.tolist(), batch.steps.tolist(), strict=True)]
    assert batch.targets.tolist() == expected


def test_random_windows_move_from_epoch_to_epoch_and_repeat_for_one_epoch(make_sequences: Make) -> None:
    _, folder = make_sequences([list(range(1, 41))] * 8)
    rows = TrainingRows(Sequences.open(folder), length=4, windows="random")

    def starts(epoch: int) -> list[int]:
        rows.plan(1, epoch, 8)
        return rows.first.tolist()

    first = starts(0)
    assert first != starts(1)
    assert first == starts(0)
    reached = {start for epoch in range(60) for start in starts(epoch)}
    trained = int(Sequences.open(folder).train_length[0])
    assert reached == set(range(trained - 4))
