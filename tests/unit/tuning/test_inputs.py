from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stillhouse.data.files import is_none, sha256_tree
from stillhouse.errors import NightError
from stillhouse.runner.closure import package_root
from stillhouse.tuning.inputs import held_still, stage_inputs

NAMES = {
    "vocabulary": "data/vocabulary",
    "sequences": "data/sequences",
    "soft_targets": "data/soft_targets",
    "previous_student": "previous/students/gru",
}


@pytest.fixture(name="workspace")
def _workspace(tmp_path: Path) -> Path:
    shutil.copy(package_root().parent / "dvc.yaml", tmp_path)
    for place in NAMES.values():
        (tmp_path / place / "inner").mkdir(parents=True)
        (tmp_path / place / "inner" / "file").write_text(place)
    return tmp_path


def test_the_stage_takes_what_dvc_yaml_says(workspace: Path) -> None:
    found = stage_inputs(workspace, "train_student", "gru")
    assert {name: path.relative_to(workspace).as_posix() for name, path in found.items()}.items() >= NAMES.items()


def test_what_no_night_has_made_is_named_in_one_line(workspace: Path) -> None:
    shutil.rmtree(workspace / "data" / "soft_targets")
    with pytest.raises(NightError, match=r"found no data/soft_targets here: `stillhouse run` first"):
        stage_inputs(workspace, "train_student", "gru")


def test_inputs_stay_as_they_are_while_a_night_puts_others_in_their_place(workspace: Path) -> None:
    inputs = stage_inputs(workspace, "train_student", "gru")
    before = sha256_tree(inputs["sequences"])
    with held_still(inputs, workspace / "still", warm=True) as still:
        shutil.rmtree(inputs["sequences"])
        inputs["sequences"].mkdir()
        (inputs["sequences"] / "file").write_text("tonight's")
        assert sha256_tree(still["sequences"]) == before
        assert (still["previous_student"] / "inner" / "file").read_text() == NAMES["previous_student"]
    assert not (workspace / "still").exists()
    assert (inputs["sequences"] / "file").read_text() == "tonight's"


def test_a_cold_search_takes_nothing_from_last_night(workspace: Path) -> None:
    inputs = stage_inputs(workspace, "train_student", "gru")
    with held_still(inputs, workspace / "still", warm=False) as still:
        assert is_none(still["previous_student"])
        assert not is_none(still["sequences"])


def test_where_no_further_name_can_be_given_bytes_are_copied(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    inputs = stage_inputs(workspace, "train_student", "gru")
    with held_still(inputs, workspace / "still", warm=True) as still:
        assert sha256_tree(still["soft_targets"]) == sha256_tree(inputs["soft_targets"])


def test_a_student_that_no_night_has_trained_is_searched_all_the_same(workspace: Path) -> None:
    shutil.rmtree(workspace / "previous")
    inputs = stage_inputs(workspace, "train_student", "gru")
    with held_still(inputs, workspace / "still", warm=False) as still:
        assert is_none(still["previous_student"])


def test_what_a_night_takes_away_at_that_moment_is_told(workspace: Path) -> None:
    inputs = stage_inputs(workspace, "train_student", "gru")
    shutil.rmtree(inputs["soft_targets"])
    with (
        pytest.raises(NightError, match=r"soft_targets went meanwhile"),
        held_still(inputs, workspace / "still", warm=False),
    ):
        pass
    assert not (workspace / "still").exists()
