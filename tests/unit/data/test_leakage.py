from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.events import Events
from stillhouse.data.leakage import (
    among,
    check_cut,
    check_histories,
    load_trained,
    row_hashes,
    save_trained,
    union,
)
from stillhouse.data.sequences import Sequences
from stillhouse.data.split import Window, cut
from stillhouse.errors import DataError

NO_WINDOW = Window(None, None, "")


def _events(rows: list[tuple[str, str, int]]) -> Events:
    users, items = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))
    return Events(
        users=np.array([users.index(row[0]) for row in rows], np.int32),
        items=np.array([items.index(row[1]) for row in rows], np.int32),
        times=np.array([row[2] for row in rows], np.int64),
        weights=np.ones(len(rows), np.float32),
        user_ids=users,
        item_ids=items,
        order="timestamp",
    )


def test_a_hash_belongs_to_the_row_and_not_to_its_place_or_codes() -> None:
    one = row_hashes(_events([("a", "x", 1), ("b", "y", 2), ("a", "y", 2)]))
    other = row_hashes(_events([("b", "y", 2), ("a", "y", 2), ("a", "x", 1)]))
    assert one[[1, 2, 0]].tolist() == other.tolist()


def _mixed(value: int) -> int:
    """SplitMix64's finaliser, in Python's own integers."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) % 2**64
    return value ^ (value >> 31)


def test_hashes_are_the_same_on_every_night_and_machine() -> None:
    rows = [("ann", "kettle", 1_704_067_200), ("żółw", "0042", -1)]
    user, item = (
        [int.from_bytes(blake2b(row[side].encode(), digest_size=8).digest(), "little") for row in rows]
        for side in (0, 1)
    )
    expected = [
        _mixed((_mixed((_mixed(u) + i) % 2**64) + row[2]) % 2**64) for u, i, row in zip(user, item, rows, strict=True)
    ]
    found = row_hashes(_events(rows)).tolist()
    assert found == expected
    # Golden: if this changes, every trained.npy that exists is void.
    assert found[0] == 10758843838445629055


def test_user_item_and_time_all_count_and_do_not_stand_in_for_each_other() -> None:
    rows = [("a", "b", 1), ("b", "a", 1), ("a", "b", 2), ("ab", "", 1), ("", "ab", 1), ("a", "b", -1)]
    assert len(set(row_hashes(_events(rows)).tolist())) == len(rows)


def test_many_rows_have_as_many_hashes() -> None:
    rows = [(f"u{user}", f"i{item}", time) for user in range(20) for item in range(20) for time in range(25)]
    assert len(np.unique(row_hashes(_events(rows)))) == 10_000


def test_among_finds_those_and_only_those() -> None:
    trained = np.array([2, 5, 9], np.uint64)
    assert among(np.array([9, 1, 5, 10, 2, 5], np.uint64), trained).tolist() == [True, False, True, False, True, True]
    assert among(np.array([1], np.uint64), np.zeros(0, np.uint64)).tolist() == [False]
    assert among(np.zeros(0, np.uint64), trained).tolist() == []


def test_union_is_sorted_and_holds_each_once() -> None:
    parts = (np.array([5, 2, 5], np.uint64), np.array([9, 2], np.uint64), np.zeros(0, np.uint64))
    assert union(*parts).tolist() == [2, 5, 9]
    assert union(np.zeros(0, np.uint64)).tolist() == []


def test_trained_hashes_come_back_as_they_went(tmp_path: Path) -> None:
    save_trained(tmp_path, np.array([1, 2**63], np.uint64))
    assert load_trained(tmp_path).tolist() == [1, 2**63]


def test_a_vocabulary_that_does_not_say_what_was_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trained\.npy"):
        load_trained(tmp_path)


FOUR = _events([("a", "w", 1), ("a", "x", 2), ("a", "y", 3), ("a", "z", 4)])


def test_a_target_that_was_trained_on_is_a_leak() -> None:
    hashes = row_hashes(FOUR)
    splits = cut(FOUR, NO_WINDOW)
    check_cut(FOUR, splits, hashes, np.sort(hashes[:2]), NO_WINDOW)
    with pytest.raises(DataError, match="no held-out event"):
        check_cut(FOUR, splits, hashes, np.sort(hashes[:3]), NO_WINDOW)


def test_a_training_row_in_the_window_is_a_leak() -> None:
    with pytest.raises(DataError, match="time window"):
        check_cut(FOUR, cut(FOUR, NO_WINDOW), row_hashes(FOUR), np.zeros(0, np.uint64), Window(1, 9, ""))


def _times(sequences: Sequences) -> dict[str, np.ndarray]:
    return {
        split: np.array([sequences.times[sequences.offsets[u] + n] for u, n, _ in sequences.targets(split)], np.int64)
        for split in ("valid", "test", "window")  # type: ignore[attr-defined]
    }


def test_histories_of_made_sequences_end_right_before_their_targets(
    make_sequences: Callable[..., tuple[Path, Path]],
) -> None:
    sequences = Sequences.open(make_sequences([[3, 1, 4, 2, 5], [2, 1]], window=1)[1])
    check_histories(sequences, _times(sequences))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ((0, 2, 2), "the target itself is in its history"),
        ((0, 0, 2), "an event between history and target is left out"),
        ((0, 3, 0), "the history reaches into the next user's"),
        ((0, -1, 2), "a negative length"),
    ],
)
def test_a_history_that_does_not_end_right_before_its_target_is_refused(
    make_sequences: Callable[..., tuple[Path, Path]], row: tuple[int, int, int], what: str
) -> None:
    sequences = Sequences.open(make_sequences([[1, 2], [3, 1, 2]])[1])
    times = _times(sequences)
    broken = replace(sequences, test=np.array([row], np.int64))
    with pytest.raises(DataError, match="right before its target"):
        check_histories(broken, {**times, "test": times["test"][:1]})
    assert what
