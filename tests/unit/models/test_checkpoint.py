"""Checkpoints: refused in one line when they are damaged or of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, load, save
from stillhouse.params.model import GruSpec

SPEC = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0)


@pytest.fixture(name="checkpoint")
def _checkpoint(tmp_path: Path) -> Path:
    save(tmp_path / "model", build(SPEC, 3), Header(SPEC, 3, "d1", repeat_items=False, seed=0, warm=False))
    return tmp_path / "model"


def test_nothing_but_the_two_files_is_left_and_a_killed_writers_remains_go(tmp_path: Path) -> None:
    (tmp_path / ".model.77.partial").mkdir()
    (tmp_path / ".model.77.partial" / "model.safetensors").write_bytes(b"half")
    save(tmp_path / "model", build(SPEC, 3), Header(SPEC, 3, "d1", repeat_items=False, seed=0, warm=False))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_a_loaded_model_is_in_evaluation_mode(checkpoint: Path) -> None:
    assert not load(checkpoint)[0].training


def test_another_vocabulary_is_refused(checkpoint: Path) -> None:
    with pytest.raises(TrainingError, match=r"must belong to the vocabulary it is read with, found d1 for d2"):
        load(checkpoint, vocabulary="d2")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(TrainingError, match=f"must hold {name}, found none"):
        load(checkpoint)


def test_weights_that_are_cut_off_are_refused(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="must be whole, found it damaged"):
        load(checkpoint)


def test_a_header_of_another_size_is_refused(checkpoint: Path) -> None:
    _edit(checkpoint, n_items=4)
    with pytest.raises(TrainingError, match="must be those of the model in its header"):
        load(checkpoint)


@pytest.mark.parametrize(
    "change", [{"format": 99}, {"model": {"kind": "grru"}}, {"surprise": 1}, {"model": None}], ids=str
)
def test_a_header_that_makes_no_sense_is_refused(checkpoint: Path, change: dict[str, object]) -> None:
    _edit(checkpoint, **change)
    with pytest.raises(TrainingError, match="must describe a checkpoint of format 1"):
        load(checkpoint)


def test_a_header_that_is_not_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.json").write_text("{")
    with pytest.raises(TrainingError, match="must describe a checkpoint of format 1"):
        load(checkpoint)


def _edit(checkpoint: Path, **change: object) -> None:
    file = checkpoint / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
