"""The state of a training comes back bit for bit, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stillhouse.params.model import TrainingSpec
from stillhouse.train.optimizer import adamw
from stillhouse.train.state import State, load_state, named_optimizer_state, restore_optimizer, save_state

STATE = State({"w": torch.tensor([1.5, -0.0, float("nan")])}, {"epoch": 3, "best": 0.1 + 0.2, "names": ["a"]})


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    found = load_state(tmp_path)
    assert found is not None
    assert found.facts == STATE.facts
    assert found.tensors["w"].view(torch.int32).tolist() == STATE.tensors["w"].view(torch.int32).tolist()


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


def test_a_half_written_state_leaves_the_one_before_and_is_removed(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    (tmp_path / ".training.safetensors.4711.tmp").write_bytes(b"half of a st")
    found = load_state(tmp_path)
    assert found is not None
    assert found.facts == STATE.facts
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_a_damaged_state_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training.safetensors").write_bytes(content)
    assert load_state(tmp_path) is None


def test_a_state_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    file = tmp_path / "training.safetensors"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert load_state(tmp_path) is None


def test_an_optimiser_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def run(broken: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
        optimizer = adamw(model, TrainingSpec())
        for step in range(4):
            if broken and step == 2:
                save_state(tmp_path, State(named_optimizer_state(optimizer), {}))
                optimizer = adamw(model, TrainingSpec())
                found = load_state(tmp_path)
                assert found is not None
                restore_optimizer(optimizer, found.tensors)
            optimizer.zero_grad()
            model(torch.full((1, 3), float(step + 1))).square().sum().backward()
            optimizer.step()
        return model.weight.detach()

    assert torch.equal(run(broken=True), run(broken=False))
