from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stillhouse.data.files import write_none
from stillhouse.data.kcore import kcore
from stillhouse.data.sequences import SPLITS, Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError
from stillhouse.params.prepare import PrepareParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.prepare import prepare

DAY = 86_400
Row = tuple[str, str, int]


def _in_time(row: Row) -> tuple[int, str, str]:
    return row[2], row[0], row[1]


class Night(NamedTuple):
    """What one night wrote, decoded to ids."""

    vocabulary: Vocabulary
    sequences: Sequences
    trained: set[Row]
    held_out: dict[str, set[Row]]
    dropped: int


@st.composite
def _rows(draw: st.DrawFn, first_day: int, days: int) -> list[Row]:
    """Rows of a few users and items, with many ties and repeats, sorted by time."""
    size = draw(st.integers(1, 14))
    users = draw(st.lists(st.sampled_from("abcdef"), min_size=size, max_size=size))
    items = draw(st.lists(st.sampled_from("pqrstuvw"), min_size=size, max_size=size))
    times = draw(st.lists(st.integers(first_day * 4 + 1, (first_day + days) * 4), min_size=size, max_size=size))
    rows = {(user, item, time * DAY // 4): None for user, item, time in zip(users, items, times, strict=True)}
    return sorted(rows, key=_in_time)


def _run(root: Path, number: int, rows: list[Row], write: Callable[..., Path], as_of: int, **changed: object) -> Night:
    before, here = root / str(number - 1), root / str(number)
    values = {
        "min_user_events": 2,
        "min_item_events": 2,
        "min_rating": None,
        "window_days": 3,
        "repeat_items": False,
        "event_weights": {},
        "as_of": datetime.fromtimestamp(as_of, UTC),
    }
    metrics = prepare(
        accepted=write(here / "accepted", rows),
        admitted=here / "admitted.json",
        previous_vocabulary=before / "vocabulary",
        vocabulary=here / "vocabulary",
        sequences=here / "sequences",
        params=PrepareParams(**{**values, **changed}),  # type: ignore[arg-type]
        reporter=SilentReporter(),
    )
    return _decode(
        Vocabulary.load(here / "vocabulary"), Sequences.open(here / "sequences"), metrics["held_out_dropped"]
    )


def _decode(vocabulary: Vocabulary, sequences: Sequences, dropped: object) -> Night:
    def row(user: int, place: int) -> Row:
        event = int(sequences.offsets[user]) + place
        return vocabulary.user_ids[user], vocabulary.item_ids[sequences.items[event]], int(sequences.times[event])

    trained = {row(user, place) for user, length in enumerate(sequences.train_length) for place in range(length)}
    held_out = {
        split: {row(user, length) for user, length, item in sequences.targets(split).tolist() if item > 0}
        for split in SPLITS
    }
    return Night(vocabulary, sequences, trained, held_out, int(str(dropped)))


#: Two users whose rows are enough to train on, whatever is drawn beside them.
_ALWAYS: list[Row] = [
    (user, item, day * DAY) for user, items in (("g", "pqrs"), ("h", "qpsr")) for day, item in enumerate(items)
]


# No shrinking: an example is four nights, and making it smaller takes minutes.
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data(), repeat_items=st.booleans(), keep_all=st.booleans())
def test_over_many_nights_nothing_held_out_was_trained_on_by_any_ancestor(
    write_accepted: Callable[..., Path], data: st.DataObject, repeat_items: bool, keep_all: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_none(root / "0" / "vocabulary")
        rows = sorted([*_ALWAYS, *data.draw(_rows(0, 10))], key=_in_time)
        done: list[Night] = []
        ancestors: set[Row] = set()
        for number in range(1, 5):
            as_of = (10 + number) * DAY
            if number > 1:
                rows = sorted({*rows, *data.draw(_rows(9 + number, 1))}, key=_in_time)
            if not keep_all:
                # A source that brings rows late and takes others back.
                gone = set(data.draw(st.lists(st.sampled_from(rows), max_size=3)))
                rows = sorted({*rows, *data.draw(_rows(0, 9))} - gone | set(_ALWAYS), key=_in_time)
            k = 2 if keep_all else 1
            night = _run(
                root, number, rows, write_accepted, as_of,
                repeat_items=repeat_items, min_user_events=k, min_item_events=k,
            )  # fmt: skip
            ancestors |= night.trained
            held = set().union(*night.held_out.values())
            assert not held & ancestors
            # Where rows are only ever added, after last night's as_of, no target has to be taken out for it.
            assert night.dropped == 0 or not keep_all
            assert len(held) == sum(map(len, night.held_out.values()))
            start = night.sequences.window_start
            if start is not None:
                assert all(time <= start for _, _, time in night.trained)
                assert all(time > start for _, _, time in night.held_out["window"])
                assert number == 1 or start >= as_of - DAY
            if done:
                before = done[-1].vocabulary
                assert night.vocabulary.item_ids[: before.n_items + 1] == before.item_ids
                assert night.vocabulary.user_ids[: before.n_users] == before.user_ids
            assert len(set(night.vocabulary.item_ids)) == night.vocabulary.n_items + 1
            done.append(night)


def _by_hand(
    rows: list[Row], start: int | None, k: int
) -> tuple[set[Row], dict[str, set[tuple[str, tuple[str, ...], str]]]]:
    """The contract of prepare in plain Python: training rows, and (user, history, target) by split."""
    users: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row[2]):
        mine = users.setdefault(row[0], [])
        if row[1] not in {item for _, item, _ in mine}:
            mine.append(row)
    early = {user: [row for row in mine if start is None or row[2] <= start] for user, mine in users.items()}
    train = {row for mine in early.values() for row in mine[: max(1, len(mine) - 2)]}
    while True:
        by_user, by_item = Counter(row[0] for row in train), Counter(row[1] for row in train)
        fewer = {row for row in train if by_user[row[0]] >= k and by_item[row[1]] >= k}
        if fewer == train:
            break
        train = fewer
    known = {row[1] for row in train}
    targets: dict[str, set[tuple[str, tuple[str, ...], str]]] = {"valid": set(), "test": set(), "window": set()}
    for user, mine in users.items():
        n = len(early[user])
        places = [("valid", n - 2)] * (n >= 3) + [("test", n - 1)] * (n >= 2)
        for split, place in [*places, *(("window", place) for place in range(n, len(mine)))]:
            history = tuple(row[1] for row in mine[:place] if row[1] in known)
            targets[split].add((user, history, mine[place][1] if mine[place][1] in known else ""))
    return train, targets


@settings(max_examples=40, deadline=None)
@given(rows=_rows(0, 10), more=_rows(0, 10), k=st.integers(1, 2), window_days=st.sampled_from([0.0, 2.0, 4.5]))
def test_a_first_night_is_what_plain_python_makes_of_it(
    write_accepted: Callable[..., Path], rows: list[Row], more: list[Row], k: int, window_days: float
) -> None:
    rows = sorted({*rows, *more}, key=_in_time)
    with tempfile.TemporaryDirectory() as folder:
        write_none(Path(folder) / "0" / "vocabulary")
        try:
            night = _run(
                Path(folder), 1, rows, write_accepted, 11 * DAY,
                window_days=window_days, min_user_events=k, min_item_events=k,
            )  # fmt: skip
        except DataError:
            train, _ = _by_hand(rows, None if not window_days else 11 * DAY - int(window_days * DAY), k)
            lengths = Counter(row[0] for row in train)
            assert len(lengths) < 2 or len({row[1] for row in train}) < 2 or max(lengths.values()) < 2
            return
        train, targets = _by_hand(rows, night.sequences.window_start, k)
        assert night.trained == train
        ids = night.vocabulary.item_ids
        for split in SPLITS:
            found = {
                (
                    night.vocabulary.user_ids[user],
                    tuple(ids[place] for place in night.sequences.history(user, length)),
                    ids[item],
                )
                for user, length, item in night.sequences.targets(split).tolist()
            }
            assert found == targets[split]
        counts = Counter(row[1] for row in train)
        assert night.vocabulary.popularity.tolist() == [0, *(counts[item] for item in ids[1:])]


PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40)


@given(pairs=PAIRS, seed=st.randoms(use_true_random=False), k=st.integers(1, 3), protected=st.sets(st.integers(0, 7)))
def test_the_core_does_not_depend_on_the_order_of_rows_and_meets_k(
    pairs: list[tuple[int, int]], seed: object, k: int, protected: set[int]
) -> None:
    mask = np.isin(np.arange(8), sorted(protected))

    def core(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        columns = np.array(rows, np.int32).reshape(-1, 2).T
        return kcore(columns[0], columns[1], min_user_events=k, min_item_events=k, n_users=8, protected=mask)

    users, items = core(pairs)
    shuffled = list(pairs)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [side.tolist() for side in core(shuffled)] == [users.tolist(), items.tolist()]
    inside = [(user, item) for user, item in pairs if users[user] and items[item]]
    by_user, by_item = Counter(user for user, _ in inside), Counter(item for _, item in inside)
    assert all(by_user[user] >= k for user in np.flatnonzero(users))
    assert all(by_item[item] >= k or item in protected for item in np.flatnonzero(items))
    assert all(items[item] for item in protected)


@given(
    histories=st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=5),
    width=st.integers(1, 8),
    data=st.data(),
)
def test_padded_rows_are_the_end_of_each_history_and_then_zeros(
    histories: list[list[int]], width: int, data: st.DataObject
) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=6))
    lengths = [data.draw(st.integers(0, len(histories[user]))) for user in users]
    sequences = Sequences(
        items=np.array([item for history in histories for item in history], np.int32),
        times=np.zeros(0, np.int64), weights=np.zeros(0, np.float32),
        offsets=np.cumsum([0, *map(len, histories)], dtype=np.int64), train_length=np.zeros(0, np.int32),
        valid=np.zeros((0, 3), np.int64), test=np.zeros((0, 3), np.int64), window=np.zeros((0, 3), np.int64),
        n_items=9, vocabulary="", repeat_items=True, order="position",
        window_start=None, window_end=None, window_reason="",
    )  # fmt: skip
    rows = sequences.padded(np.array(users, np.int64), np.array(lengths, np.int64), width)
    assert rows.shape == (len(users), width)
    for row, user, length in zip(rows.tolist(), users, lengths, strict=True):
        recent = histories[user][:length][-width:]
        assert row == recent + [0] * (width - len(recent))
