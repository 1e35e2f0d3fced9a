"""Parity: on real histories, whole batch and alone, and refused where it is not there."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.errors import PackageError
from stillhouse.models.protocol import SequenceModel
from stillhouse.package import parity
from stillhouse.package.export import serialise
from stillhouse.package.parity import change, check_parity, real_histories


@pytest.fixture
def data(graph: onnx.ModelProto) -> bytes:
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    return serialise(other, {})


@pytest.fixture
def histories(student: SequenceModel) -> np.ndarray:
    found = np.random.default_rng(0).integers(1, student.n_items + 1, (12, student.length))
    for row in range(12):
        found[row, 1 + row % student.length :] = 0
    return found


def test_graph_and_checkpoint_agree(student: SequenceModel, data: bytes, histories: np.ndarray) -> None:
    assert 0.0 <= check_parity(data, student, histories, 1e-4) < 1e-5


def test_another_checkpoint_is_refused_and_the_difference_named(
    student: SequenceModel, data: bytes, histories: np.ndarray
) -> None:
    other = copy.deepcopy(student)
    with torch.no_grad():
        other.items.weight[5] *= -1.0
    with pytest.raises(PackageError, match=r"within 0\.0001 on every score, found a difference of \d"):
        check_parity(data, other, histories, 1e-4)


def test_scores_that_are_no_numbers_are_refused(student: SequenceModel, data: bytes, histories: np.ndarray) -> None:
    class Diverged(torch.nn.Module):
        def forward(self, histories: torch.Tensor) -> torch.Tensor:
            return student(histories) * torch.nan

    with pytest.raises(PackageError, match="every score must be a finite number"):
        check_parity(data, Diverged(), histories, 1e-4)


def test_a_graph_that_fails_alone_only_is_refused(
    student: SequenceModel, data: bytes, histories: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parity._both

    def alone_is_nan(session: object, model: torch.nn.Module, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        expected, found = plain(session, model, part)  # type: ignore[arg-type]
        return expected, found * np.float32(np.nan) if len(part) == 1 else found

    monkeypatch.setattr(parity, "_both", alone_is_nan)
    with pytest.raises(PackageError, match="every score must be a finite number"):
        check_parity(data, student, histories, 1e-4)


def test_histories_are_looked_at_in_parts_that_fit_into_memory(
    student: SequenceModel, data: bytes, histories: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = check_parity(data, student, histories, 1e-4), change(data, student, histories)["top_10_kept"]
    monkeypatch.setattr(parity, "_CELLS", 3 * (student.n_items + 1))
    sizes, plain = [], parity._both
    monkeypatch.setattr(parity, "_both", lambda *given: sizes.append(len(given[2])) or plain(*given))
    found = check_parity(data, student, histories, 1e-4), change(data, student, histories)["top_10_kept"]
    assert sizes == [3, 3, 3, 3, 1, 1, 1, 1, 3, 3, 3, 3]
    assert found == pytest.approx(whole, abs=1e-6)


def test_what_rounding_changed_is_the_largest_difference_and_the_lists_that_differ(
    student: SequenceModel, data: bytes, histories: np.ndarray
) -> None:
    same = change(data, student, histories)
    assert same["score_change"] < 1e-5
    assert same["top_10_kept"] == 1.0
    other = copy.deepcopy(student)
    with torch.no_grad():
        other.items.weight[5:15] *= -1.0
        expected = (other(torch.from_numpy(histories)) - student(torch.from_numpy(histories)))[:, 1:].abs().max()
    found = change(data, other, histories)
    assert found["score_change"] == pytest.approx(float(expected), abs=1e-4)
    assert 0.0 < found["top_10_kept"] < 1.0


def test_histories_are_real_whole_and_spread_over_all_lengths(make_sequences) -> None:
    sequences = Sequences.open(make_sequences([[1], [2, 3], [], [3, 2, 1], [1, 2, 3, 4]])[1])
    assert real_histories(sequences, 2, 3).tolist() == [[1, 0, 0], [2, 3, 4]]
    assert real_histories(sequences, 99, 3).tolist() == [[1, 0, 0], [2, 3, 0], [3, 2, 1], [2, 3, 4]]
