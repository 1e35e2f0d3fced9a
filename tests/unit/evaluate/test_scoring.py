"""Scoring a split: what the model is asked, what is filtered, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from stillhouse.data.sequences import Sequences
from stillhouse.evaluate import ranking
from stillhouse.evaluate.mapped import ItemMapping, mapped_scorer
from stillhouse.evaluate.popularity import PopularityScorer, popularity_scores
from stillhouse.evaluate.scoring import History, score_split
from stillhouse.reporting import SilentReporter

HISTORIES = [[1, 2, 3, 4, 5], [5, 4, 1], [2], [3, 1]]


@pytest.fixture
def sequences(make_sequences) -> Sequences:
    return Sequences.open(make_sequences(HISTORIES, window=1)[1])


class Asked:
    """Scores items by their index and remembers the histories it was given."""

    def __init__(self, n_items: int) -> None:
        self.histories: list[list[int]] = []
        self.n_items = n_items

    def __call__(self, histories: np.ndarray) -> np.ndarray:
        self.histories += histories.tolist()
        return np.tile(np.arange(self.n_items + 1, dtype=np.float32), (len(histories), 1))


def score(sequences: Sequences, split: str, scorer, **more):
    settings = {"length": 3, "k": 2, "batch_size": 2, "repeat_items": False}
    return score_split(sequences, split, scorer, **{**settings, **more})


def test_each_target_is_asked_with_the_most_recent_events_before_it(sequences: Sequences) -> None:
    asked = Asked(5)
    scored = score(sequences, "window", asked)
    assert asked.histories == [[2, 3, 4], [5, 4, 0], [0, 0, 0], [3, 0, 0]]
    assert scored.users.tolist() == [0, 1, 2, 3]
    assert scored.items.tolist() == [5, 1, 2, 1]
    assert scored.lengths.tolist() == [4, 2, 0, 1]


def test_all_that_was_seen_is_filtered_also_beyond_the_window_of_the_model(sequences: Sequences) -> None:
    scored = score(sequences, "window", Asked(5))
    assert scored.ranks.tolist() == [1, 3, 4, 4]
    assert scored.top.tolist() == [[5, 0], [3, 2], [5, 4], [5, 4]]


def test_nothing_is_filtered_where_people_take_items_again(sequences: Sequences) -> None:
    scored = score(sequences, "window", Asked(5), repeat_items=True)
    assert scored.ranks.tolist() == [1, 5, 4, 5]
    assert scored.top.tolist() == [[5, 4]] * 4


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_changes_nothing(sequences: Sequences, batch_size: int) -> None:
    one, other = (score(sequences, "window", Asked(5), batch_size=size) for size in (2, batch_size))
    np.testing.assert_array_equal(one.ranks, other.ranks)
    np.testing.assert_array_equal(one.top, other.top)


@pytest.mark.parametrize("threads", [2, 7])
def test_the_number_of_threads_changes_nothing(
    sequences: Sequences, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = score(sequences, "window", Asked(5), batch_size=100)
    monkeypatch.setattr(ranking, "_ROOM", 1)  # each row is a part of its own
    other = score(sequences, "window", Asked(5), batch_size=100, threads=threads)
    np.testing.assert_array_equal(one.ranks, other.ranks)
    np.testing.assert_array_equal(one.top, other.top)


def test_an_empty_history_is_answered_as_serving_would(sequences: Sequences) -> None:
    asked = Asked(5)
    fallback = np.array([-np.inf, 1, 9, 2, 3, 4])
    scored = score(sequences, "window", asked, fallback=fallback, batch_size=1)
    assert [0, 0, 0] not in asked.histories
    assert scored.ranks[2] == 1
    assert scored.top[2].tolist() == [2, 5]


def test_an_empty_split_gives_no_rows(make_sequences) -> None:
    sequences = Sequences.open(make_sequences([[1, 2]])[1])
    scored = score(sequences, "window", Asked(2), reporter=SilentReporter())
    assert len(scored.ranks) == len(scored.users) == 0


def test_an_unknown_target_is_a_miss(sequences: Sequences) -> None:
    sequences = Sequences(**{**vars(sequences), "window": np.array([[0, 4, 0]])})
    assert score(sequences, "window", Asked(5)).ranks.tolist() == [6]


def test_another_vocabulary_is_asked_in_its_own_indices_and_ranked_in_ours(sequences: Sequences) -> None:
    # The model's items 1, 2, 3 are tonight's 4, 5, 3; tonight's 1 and 2 are new to it.
    mapping = ItemMapping(np.array([0, 4, 5, 3]), 5)
    asked = Asked(3)
    scored = score(sequences, "window", mapped_scorer(asked, mapping), index=mapping.theirs)
    assert asked.histories == [[3, 1, 0], [2, 1, 0], [0, 0, 0], [3, 0, 0]]
    # Targets 5, 1, 2, 1: only the first can be scored, and nothing unscored stands before it.
    assert scored.ranks.tolist() == [1, 6, 6, 6]
    assert scored.top.tolist() == [[5, 0], [3, 0], [3, 5], [5, 4]]


def test_a_model_with_the_same_items_in_another_order_ranks_the_same(sequences: Sequences) -> None:
    order = np.array([0, 3, 1, 5, 2, 4])
    mapping = ItemMapping(order, 5)

    def theirs(histories: np.ndarray) -> np.ndarray:
        return np.tile(order.astype(np.float32), (len(histories), 1))

    same = score(sequences, "window", mapped_scorer(theirs, mapping), index=mapping.theirs)
    np.testing.assert_array_equal(same.ranks, score(sequences, "window", Asked(5)).ranks)


def test_the_mean_of_an_empty_history_is_nan(sequences: Sequences) -> None:
    means = History.of(sequences, np.asarray(sequences.window)).means(np.array([0, 10.0, 20, 30, 40, 50]))
    np.testing.assert_allclose(means, [25.0, 45.0, np.nan, 30.0])


def test_popularity_is_the_same_for_everyone_and_never_the_padding() -> None:
    scores = PopularityScorer(np.array([0, 1, 3]))(np.zeros((2, 4), np.int64))
    assert scores.tolist() == [[-np.inf, 0.25, 0.75]] * 2
    assert popularity_scores(np.array([0, 0])).tolist() == [-np.inf, 0.0]
