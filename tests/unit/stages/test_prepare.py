from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shared_data import shared

from stillhouse.data.files import read_json, sha256_tree, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError
from stillhouse.params.prepare import PrepareParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.prepare import prepare

DAY = 86_400
Rows = Sequence[tuple[object, ...]]


class Nights:
    """Nights one after the other, each starting from the vocabulary of the one before."""

    def __init__(self, root: Path, write_accepted: Callable[..., Path]) -> None:
        self.root, self.write, self.count = root, write_accepted, 0
        self.metrics: Mapping[str, Any] = {}
        write_none(root / "0" / "vocabulary")

    def run(
        self, rows: Rows, *, as_of_day: float = 100, order: str = "timestamp", items: Any = None, **changed: Any
    ) -> None:
        before, self.count = self.root / str(self.count), self.count + 1
        here = self.root / str(self.count)
        values: dict[str, Any] = {
            "min_user_events": 1,
            "min_item_events": 1,
            "min_rating": None,
            "window_days": 0,
            "repeat_items": False,
            "event_weights": {"view": 0.5, "purchase": 1.0},
            "as_of": datetime.fromtimestamp(as_of_day * DAY, UTC),
        }
        self.metrics = prepare(
            accepted=self.write(here / "accepted", rows, order=order, items=items),
            admitted=here / "admitted.json",
            previous_vocabulary=before / "vocabulary",
            vocabulary=here / "vocabulary",
            sequences=here / "sequences",
            params=PrepareParams(**{**values, **changed}),
            reporter=SilentReporter(),
        )

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.root / str(self.count) / "vocabulary")

    @property
    def sequences(self) -> Sequences:
        return Sequences.open(self.root / str(self.count) / "sequences")

    def history(self, user: str) -> list[str]:
        index = self.vocabulary.user_index(user)
        start, end = self.sequences.offsets[index : index + 2]
        return [self.vocabulary.item_ids[item] for item in self.sequences.items[start:end]]

    def targets(self, split: str) -> list[tuple[str, int, str]]:
        ids = self.vocabulary
        rows = self.sequences.targets(split).tolist()  # type: ignore[arg-type]
        return [(ids.user_ids[user], length, ids.item_ids[item]) for user, length, item in rows]


@pytest.fixture
def nights(tmp_path: Path, write_accepted: Callable[..., Path]) -> Nights:
    return Nights(tmp_path, write_accepted)


def _day(user: str, items: str, first: float = 0) -> list[tuple[str, str, int]]:
    """One event a day of ``user`` with each letter of ``items``, from day ``first`` on."""
    return [(user, item, int((first + place) * DAY)) for place, item in enumerate(items)]


#: Ann and Bob have four events each, Cem two.
SMALL = [*_day("ann", "abcd"), *_day("bob", "badc"), *_day("cem", "ca")]


def test_a_small_night_is_as_worked_by_hand(nights: Nights) -> None:
    nights.run(SMALL)
    # Training rows: ann a b, bob b a, cem c. First appearances: day 0 a (ann), b (bob), c (cem); d has none.
    assert nights.vocabulary.item_ids == ["", "a", "b", "c"]
    assert nights.vocabulary.user_ids == ["ann", "bob", "cem"]
    assert nights.vocabulary.popularity.tolist() == [0, 2, 2, 1]
    assert nights.history("ann") == ["a", "b", "c"]
    assert nights.history("bob") == ["b", "a", "c"]
    assert nights.sequences.train_length.tolist() == [2, 2, 1]
    assert nights.targets("valid") == [("ann", 2, "c"), ("bob", 2, "")]
    assert nights.targets("test") == [("ann", 3, ""), ("bob", 2, "c"), ("cem", 1, "a")]
    assert nights.targets("window") == []
    assert nights.metrics["training_rows"] == 5
    assert nights.metrics["unknown_items_dropped"] == 2


def test_outputs_are_the_files_of_the_format_and_nothing_else(nights: Nights) -> None:
    nights.run(SMALL)
    night = nights.root / "1"
    assert {file.name for file in (night / "vocabulary").iterdir()} == {
        "items.parquet", "users.parquet", "vocabulary.json", "trained.npy",
    }  # fmt: skip
    assert {file.name for file in (night / "sequences").iterdir()} == {
        "items.npy", "times.npy", "weights.npy", "offsets.npy", "train_length.npy", "valid.npy", "test.npy",
        "window.npy", "sequences.json",
    }  # fmt: skip
    dtypes = {name: str(getattr(nights.sequences, name).dtype) for name in ("items", "times", "weights", "offsets")}
    assert dtypes == {"items": "int32", "times": "int64", "weights": "float32", "offsets": "int64"}
    assert str(nights.sequences.train_length.dtype) == "int32"
    assert pq.read_schema(night / "vocabulary" / "items.parquet").metadata is None
    assert read_json(night / "vocabulary" / "vocabulary.json")["as_of"] == "1970-04-11T00:00:00+00:00"


def test_equal_rows_give_equal_bytes(nights: Nights, tmp_path: Path, write_accepted: Callable[..., Path]) -> None:
    again = Nights(tmp_path / "again", write_accepted)
    for run in (nights, again):
        run.run(SMALL, window_days=7)
    for output in ("vocabulary", "sequences"):
        assert sha256_tree(nights.root / "1" / output) == sha256_tree(again.root / "1" / output)
    assert nights.metrics == again.metrics


def test_ties_keep_the_order_of_the_input(nights: Nights) -> None:
    nights.run([("ann", item, 7) for item in "dbca"] + [("bob", item, 7) for item in "abcd"])
    assert nights.history("ann") == ["d", "b", "a"]
    assert nights.targets("test") == [("ann", 2, "a"), ("bob", 2, "d")]


def test_a_kcore_user_keeps_the_history_but_takes_no_part_in_training(nights: Nights) -> None:
    nights.run(SMALL, min_user_events=2)
    assert nights.vocabulary.item_ids == ["", "a", "b"]
    assert nights.vocabulary.user_ids == ["ann", "bob", "cem"]
    assert nights.sequences.train_length.tolist() == [2, 2, 0]
    assert nights.history("cem") == ["a"]
    assert nights.targets("test")[-1] == ("cem", 0, "a")
    assert nights.metrics["training_users"] == 2


def test_a_rare_item_leaves_histories_and_is_a_miss_as_a_target(nights: Nights) -> None:
    rows = [*_day("ann", "axbcd"), *_day("bob", "abdcx"), *_day("cem", "abcdx")]
    nights.run(rows, min_item_events=2)
    # Training rows: ann a x b, bob a b d, cem a b c. Only a and b have two.
    assert nights.vocabulary.item_ids == ["", "a", "b"]
    assert nights.history("ann") == ["a", "b"]
    assert nights.sequences.train_length.tolist() == [2, 2, 2]
    assert nights.targets("test") == [("ann", 2, ""), ("bob", 2, ""), ("cem", 2, "")]
    assert nights.sequences.training_rows == nights.vocabulary.popularity.sum()


def test_dropping_an_item_moves_no_event_from_one_split_to_another(nights: Nights) -> None:
    # x is ann's test target and nobody's training row: c stays her validation target.
    nights.run([*_day("ann", "abcx"), *_day("bob", "cabc"), *_day("cem", "cab")])
    assert ("ann", 2, "c") in nights.targets("valid")
    assert ("ann", 3, "") in nights.targets("test")


def test_the_window_holds_out_what_comes_after_its_start(nights: Nights) -> None:
    rows = [*_day("ann", "abcdef", 90), *_day("bob", "fedcba", 85), *_day("new", "ab", 97)]
    nights.run(rows, as_of_day=99, window_days=5)
    assert (nights.sequences.window_start, nights.sequences.window_end) == (94 * DAY, 99 * DAY)
    # Ann's events up to day 94 are a b c d e: training a b c, valid d, test e. Then f.
    assert nights.targets("window") == [("ann", 5, "f"), ("new", 0, "a"), ("new", 1, "b")]
    assert nights.sequences.train_length.tolist() == [4, 3, 0]
    assert nights.vocabulary.user_ids == ["bob", "ann", "new"]
    assert nights.metrics["window_without_history"] == 1


def test_repeats_go_unless_people_buy_again(
    nights: Nights, tmp_path: Path, write_accepted: Callable[..., Path]
) -> None:
    rows = [
        ("ann", "a", 1, None, "view"), ("ann", "b", 2, None, "view"), ("ann", "a", 3, None, "purchase"),
        ("ann", "c", 4, None, "view"), ("ann", "d", 5, None, "view"), *SMALL[4:],
    ]  # fmt: skip
    nights.run(rows)
    assert nights.history("ann") == ["a", "b", "c"]
    assert nights.sequences.weights[nights.sequences.offsets[nights.vocabulary.user_index("ann")]] == 1.0
    assert nights.metrics["repeats_dropped"] == 1
    again = Nights(tmp_path / "again", write_accepted)
    again.run(rows, repeat_items=True)
    assert again.history("ann") == ["a", "b", "a", "c"]
    assert again.sequences.repeat_items is True
    assert again.sequences.weights[again.sequences.offsets[again.vocabulary.user_index("ann")]] == 0.5


def test_low_ratings_are_no_sign_of_liking(nights: Nights) -> None:
    rated = [(*row, 5.0) for row in SMALL] + [("ann", "z", 2 * DAY, 1.0)]
    nights.run(rated, min_rating=4.0)
    assert nights.vocabulary.item_index("z") == 0
    assert (nights.metrics["rows"], nights.metrics["rows_below_min_rating"]) == (11, 1)


def test_titles_come_from_the_table_and_stay_when_it_goes(nights: Nights) -> None:
    nights.run(SMALL, items={"b": ("Bowl", None, "kitchen"), "a": (None, "a text", None), "zz": ("Unseen", None, None)})
    nights.run(SMALL)
    vocabulary = nights.vocabulary
    assert vocabulary.titles == [None, None, "Bowl", None]
    assert vocabulary.texts == [None, "a text", None, None]
    assert vocabulary.categories == [None, None, "kitchen", None]
    assert vocabulary.has_items


def test_ids_keep_their_index_and_new_ones_are_appended(nights: Nights) -> None:
    nights.run(SMALL)
    first = nights.vocabulary
    nights.run([*_day("aaa", "0abcd"), *SMALL, *_day("zed", "eab0", 5)], as_of_day=101)
    assert nights.vocabulary.item_ids == [*first.item_ids, "0", "e"]
    assert nights.vocabulary.user_ids == [*first.user_ids, "aaa", "zed"]
    assert (nights.metrics["new_items"], nights.metrics["new_users"]) == (2, 2)


def test_an_item_of_last_night_stays_though_nobody_takes_it_tonight(nights: Nights) -> None:
    nights.run(SMALL)
    nights.run([*_day("ann", "abef"), *_day("bob", "bafe")], as_of_day=101, min_item_events=2)
    assert nights.vocabulary.item_ids == ["", "a", "b", "c"]
    assert nights.vocabulary.popularity[3] == 0
    assert nights.vocabulary.user_ids == ["ann", "bob", "cem"]
    assert nights.history("cem") == []


def test_the_window_of_a_later_night_starts_at_last_nights_as_of(nights: Nights) -> None:
    rows = [*_day("ann", "abcdef", 90), *_day("bob", "fedcba", 85)]
    nights.run(rows, as_of_day=96, window_days=7)
    later = [*rows, ("ann", "a", 97 * DAY), ("bob", "q", 97 * DAY)]
    nights.run(later, as_of_day=97, window_days=7, repeat_items=True)
    assert nights.sequences.window_start == 96 * DAY
    assert nights.targets("window") == [("bob", 6, ""), ("ann", 6, "a")]


def test_a_target_that_an_ancestor_trained_on_is_taken_out(nights: Nights) -> None:
    nights.run([*_day("ann", "abcde"), *_day("bob", "badce")])
    assert ("ann", 3, "d") in nights.targets("valid")
    # The source takes two of ann's rows back: her third event, a training row of last night, would be a test target.
    nights.run([*_day("ann", "abc"), *_day("bob", "badce")], as_of_day=101)
    assert nights.metrics["held_out_dropped"] == 2
    assert [target for target in nights.targets("valid") + nights.targets("test") if target[0] == "ann"] == []
    assert nights.history("ann") == ["a", "b", "c"]


def test_what_ancestors_trained_on_is_never_forgotten(nights: Nights) -> None:
    nights.run([*_day("ann", "abcde"), *_day("bob", "badce")])
    first = set(np.load(nights.root / "1" / "vocabulary" / "trained.npy").tolist())
    nights.run(SMALL, as_of_day=101)
    nights.run([*_day("ann", "abc"), *_day("bob", "badce")], as_of_day=102)
    third = np.load(nights.root / "3" / "vocabulary" / "trained.npy")
    assert first <= set(third.tolist())
    assert (np.diff(third) > 0).all()


def test_position_order_has_no_window_and_takes_the_position_for_the_time(nights: Nights) -> None:
    rows = [
        ("ann", "c", 2),
        ("ann", "a", 0),
        ("ann", "b", 1),
        ("bob", "b", 0),
        ("bob", "a", 1),
        ("bob", "c", 5),
        ("bob", "d", 9),
    ]
    nights.run(rows, order="position", window_days=7)
    assert nights.sequences.window_start is None
    assert "position" in nights.sequences.window_reason
    assert nights.sequences.times.tolist() == [0, 1, 0, 1]
    assert nights.targets("test") == [("ann", 2, ""), ("bob", 2, "")]


@pytest.mark.parametrize(
    ("rows", "changed", "text"),
    [
        (SMALL, {"min_user_events": 9}, r"found 0 users.*prepare\.min_user_events \(now 9\)"),
        (SMALL, {"min_item_events": 9}, r"prepare\.min_item_events \(now 9\)"),
        (_day("ann", "abcdef"), {}, "at least 2 users"),
        ([*_day("ann", "a"), *_day("bob", "a")], {}, "at least 2 users and 2 items"),
        ([*_day("ann", "abc"), *_day("bob", "bac")], {}, "a user with 2 training rows"),
        ([(*row, 1.0) for row in SMALL], {"min_rating": 4.0}, r"prepare\.min_rating"),
    ],
)
def test_too_little_to_train_on_says_what_to_change(
    nights: Nights, rows: Rows, changed: dict[str, Any], text: str
) -> None:
    with pytest.raises(DataError, match=text):
        nights.run(rows, **changed)
    assert not (nights.root / "1" / "sequences").exists()


def test_a_later_night_with_nothing_before_its_window_says_so(nights: Nights) -> None:
    nights.run(SMALL, as_of_day=5)
    with pytest.raises(DataError, match=r"rows before the time window, found none of 4.*window_days"):
        nights.run(_day("ann", "abcd", 6), as_of_day=10, window_days=7)


@pytest.mark.shared
def test_movielens_1m_has_the_leave_one_out_targets_of_the_literature(nights: Nights) -> None:
    frame = pq.read_table(shared("ml-1m") / "interactions.parquet").to_pandas()
    columns = [frame[name].astype(str).tolist() for name in ("user_id", "item_id")]
    nights.run(list(zip(*columns, frame["position"].tolist(), strict=True)), order="position", window_days=7)
    last = frame.sort_values(["user_id", "position"]).groupby("user_id").tail(1)
    vocabulary = nights.vocabulary
    found = {user: (length, item) for user, length, item in nights.targets("test")}
    assert len(found) == 6040
    sizes = frame.groupby("user_id").size()
    known = set(vocabulary.item_ids)
    for user, item in zip(last["user_id"], last["item_id"], strict=True):
        length, target = found[str(user)]
        assert target == (str(item) if str(item) in known else "")
        assert sizes[user] - 3 <= length <= sizes[user] - 1
    assert nights.sequences.training_rows == len(frame) - 2 * 6040
    assert sum(target == "" for _, target in found.values()) <= 2
