"""Checkpoints: refused in one line when they are damaged or of something else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stillhouse.data.files import sha256_file
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, digest, load, save, size
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import EnsembleSpec, GruSpec, MemberSpec, ProductSpec, TransformerSpec

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
    "change",
    [
        {"format": 99},
        {"model": {"kind": "grru"}},
        {"surprise": 1},
        {"model": None},
        {"n_items": "9"},
        {"n_items": 9.0},
        {"n_items": -3},
        {"n_items": 10**13},
        {"vocabulary": 5},
        {"seed": "x"},
        {"repeat_items": "no"},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_is_refused(checkpoint: Path, change: dict[str, object]) -> None:
    _edit(checkpoint, **change)
    with pytest.raises(TrainingError, match="must describe a checkpoint of format 1"):
        load(checkpoint)


def test_a_header_that_is_not_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.json").write_text("{")
    with pytest.raises(TrainingError, match="must describe a checkpoint of format 1"):
        load(checkpoint)


def test_codes_beyond_the_vectors_are_refused(tmp_path: Path) -> None:
    items = ProductSpec(splits=2, codes=2)
    spec = TransformerSpec(kind="transformer", width=4, blocks=1, heads=1, length=4, dropout=0.0, items=items)
    model = build(spec, 3)
    assert isinstance(model, SequenceModel)
    assert isinstance(model.items, ProductItems)
    model.items.codes[1, 0] = 2  # the other part's first, were it looked up
    save(tmp_path / "c", model, Header(spec, 3, "d1", repeat_items=False, seed=0, warm=False))
    with pytest.raises(TrainingError, match="codes must be below 2, of which there are vectors, found 2"):
        load(tmp_path / "c")


def _edit(checkpoint: Path, **change: object) -> None:
    file = checkpoint / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.fixture(name="ensemble")
def _ensemble(tmp_path: Path) -> Path:
    spec = EnsembleSpec(kind="ensemble", members={name: MemberSpec(model=SPEC) for name in ("a", "b")})
    header = Header(spec, 3, "d1", repeat_items=False, seed=0, warm=False)
    save(tmp_path / "ensemble", build(spec, 3), header)
    return tmp_path / "ensemble"


def test_members_are_checkpoints_of_their_own(ensemble: Path) -> None:
    whole, header = load(ensemble, vocabulary="d1")
    member, own = load(ensemble / "members" / "b", vocabulary="d1")
    assert own == replace(header, spec=SPEC)
    assert isinstance(whole, Ensemble)
    for name, weight in member.state_dict().items():
        assert torch.equal(weight, whole.members["b"].state_dict()[name])


@pytest.mark.parametrize("member", ["a", "b"])
def test_a_member_that_is_missing_is_named(ensemble: Path, member: str) -> None:
    shutil.rmtree(ensemble / "members" / member)
    with pytest.raises(TrainingError, match=rf"found none in .*members/{member}"):
        load(ensemble)


def test_a_member_of_another_ensemble_is_refused(ensemble: Path) -> None:
    _edit(ensemble / "members" / "a", seed=5)
    with pytest.raises(TrainingError, match=r"must be what its ensemble's header says, found something else in .*/a/"):
        load(ensemble)


def test_the_digest_is_that_of_the_file_or_follows_every_members(checkpoint: Path, ensemble: Path) -> None:
    assert digest(checkpoint) == sha256_file(checkpoint / "model.safetensors")
    before = digest(ensemble)
    file = ensemble / "members" / "b" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert digest(ensemble) != before


def test_the_size_is_that_of_all_weights(checkpoint: Path, ensemble: Path) -> None:
    own = (ensemble / "model.safetensors").stat().st_size
    assert size(checkpoint) == (checkpoint / "model.safetensors").stat().st_size
    assert size(ensemble) == own + 2 * size(checkpoint)
