from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError

Make = Callable[..., tuple[Path, Path]]


def test_leave_one_out_of_made_histories_is_as_worked_by_hand(make_sequences: Make) -> None:
    _, directory = make_sequences([[3, 1, 4, 2], [2, 1], [4]])
    sequences = Sequences.open(directory)
    assert sequences.items.tolist() == [3, 1, 4, 2, 2, 1, 4]
    assert sequences.train_length.tolist() == [2, 1, 1]
    assert sequences.valid.tolist() == [[0, 2, 4]]
    assert sequences.test.tolist() == [[0, 3, 2], [1, 1, 1]]
    assert sequences.window.shape == (0, 3)
    assert sequences.training_rows == 4


def test_window_targets_are_the_last_events_in_order(make_sequences: Make) -> None:
    _, directory = make_sequences([[3, 1, 4, 2, 5], [2]], window=2)
    sequences = Sequences.open(directory)
    assert sequences.targets("window").tolist() == [[0, 3, 2], [0, 4, 5], [1, 0, 2]]
    assert sequences.targets("test").tolist() == [[0, 2, 4]]
    assert sequences.targets("valid").tolist() == [[0, 1, 1]]
    assert sequences.train_length.tolist() == [1, 0]


def test_history_is_a_view_into_the_mapped_file(make_sequences: Make) -> None:
    sequences = Sequences.open(make_sequences([[3, 1, 4], [2, 1]])[1])
    history = sequences.history(1, 2)
    assert history.tolist() == [2, 1]
    assert not history.flags.owndata
    assert sequences.history(0, 0).tolist() == []


def test_padded_keeps_the_most_recent_and_fills_on_the_right(make_sequences: Make) -> None:
    sequences = Sequences.open(make_sequences([[3, 1, 4, 2], [2, 1]])[1])
    rows = sequences.padded(np.array([0, 0, 1, 1]), np.array([4, 2, 1, 0]), 3)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[1, 4, 2], [3, 1, 0], [2, 0, 0], [0, 0, 0]]


def test_padded_of_no_users_and_of_no_events_is_empty_or_zero(make_sequences: Make) -> None:
    sequences = Sequences.open(make_sequences([[]], n_items=3)[1])
    assert sequences.padded(np.zeros(0, np.int64), np.zeros(0, np.int64), 4).shape == (0, 4)
    assert sequences.padded(np.array([0]), np.array([0]), 2).tolist() == [[0, 0]]


def test_arrays_are_mapped_not_read(make_sequences: Make) -> None:
    sequences = Sequences.open(make_sequences([[1, 2]])[1])
    assert all(isinstance(getattr(sequences, name), np.memmap) for name in ("items", "times", "offsets"))


def test_save_then_open_gives_the_same_bytes_again(make_sequences: Make, tmp_path: Path) -> None:
    _, directory = make_sequences([[3, 1, 4, 2], [2, 1]], window=1)
    Sequences.open(directory).save(tmp_path / "again")
    assert sha256_tree(directory) == sha256_tree(tmp_path / "again")


def test_a_missing_array_is_named(make_sequences: Make) -> None:
    _, directory = make_sequences([[1, 2]])
    (directory / "weights.npy").unlink()
    with pytest.raises(DataError, match=r"weights\.npy"):
        Sequences.open(directory)


def test_arrays_of_another_length_are_refused(make_sequences: Make) -> None:
    _, directory = make_sequences([[1, 2]])
    np.save(directory / "items.npy", np.array([1], np.int32))
    with pytest.raises(DataError, match="as long as"):
        Sequences.open(directory)


def test_a_vocabulary_of_another_night_is_refused(make_sequences: Make) -> None:
    vocabulary, directory = make_sequences([[1, 2]])
    sequences = Sequences.open(directory)
    sequences.require(Vocabulary.load(vocabulary))
    with pytest.raises(DataError, match="of one night"):
        replace(sequences, vocabulary="other").require(Vocabulary.load(vocabulary))


@pytest.mark.parametrize("name", ["items.npy", "window.npy", "sequences.json"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.99], ids=str)
def test_a_file_that_is_cut_off_is_one_line(make_sequences: Make, name: str, kept: float) -> None:
    _, directory = make_sequences([[1, 2, 3, 4] * 20])
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match="run the stage prepare again") as error:
        Sequences.open(directory)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["[]", "{}", "null"])
def test_a_header_that_lacks_what_it_must_say_is_one_line(make_sequences: Make, header: str) -> None:
    _, directory = make_sequences([[1, 2]])
    (directory / "sequences.json").write_text(header)
    with pytest.raises(DataError, match="files of sequences must be whole"):
        Sequences.open(directory)
