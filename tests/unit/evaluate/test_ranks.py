"""The evaluation's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stillhouse.errors import PackageError
from stillhouse.evaluate.ranks import read_ranks, write_evaluation
from stillhouse.evaluate.scoring import Scored


def scored(n: int) -> Scored:
    rows = np.arange(n)
    return Scored(rows, rows + 1, rows, rows + 2, np.zeros((n, 1), np.int64))


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e", {"leave_one_out": scored(3), "time_window": scored(0)}, 9, {})
    found = read_ranks(tmp_path / "e")
    assert found is not None
    assert found.n_items == 9
    rows = found.rows["leave_one_out"]
    assert (rows.users.tolist(), rows.items.tolist(), rows.ranks.tolist()) == ([0, 1, 2], [1, 2, 3], [2, 3, 4])
    assert len(found.rows["time_window"].ranks) == 0


def test_equal_evaluations_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_evaluation(tmp_path / name, {"time_window": scored(50)}, 9, {"time_window": {"head": 0.5}})
    for name in ("ranks.parquet", "slices.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_a_model_there_are_no_ranks(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e", {}, 9, {}, none=True)
    assert read_ranks(tmp_path / "e") is None
    assert (tmp_path / "e" / "ranks.parquet").is_file()


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="an evaluation must hold"):
        read_ranks(tmp_path)


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e", {"time_window": scored(50)}, 9, {"time_window": {"head": 0.5}})
    (tmp_path / "e" / "ranks.parquet").write_bytes(b"no table")
    with pytest.raises(PackageError, match="an evaluation must be whole, found ArrowInvalid") as error:
        read_ranks(tmp_path / "e")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_damaged_slices_are_one_line(tmp_path: Path, text: str) -> None:
    write_evaluation(tmp_path / "e", {"time_window": scored(50)}, 9, {"time_window": {"head": 0.5}})
    (tmp_path / "e" / "slices.json").write_text(text)
    with pytest.raises(PackageError, match="an evaluation must be whole"):
        read_ranks(tmp_path / "e")
