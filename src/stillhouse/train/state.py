"""The state that a killed training goes on from: one file, replaced whole, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stillhouse.data.files import write_bytes

__all__ = ["State", "load_state", "named_optimizer_state", "restore_optimizer", "save_state"]

_FILE = "training.safetensors"
_PREFIX = "optimizer"


@dataclass(frozen=True)
class State:
    """Everything that the steps to come depend on."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """Plain values; a float comes back from JSON as the same float."""


def save_state(directory: Path, state: State) -> None:
    """Replace the state in ``directory`` by ``state``: a kill leaves the old one or the new one.

    The facts travel in the header of the tensors' file, so that no kill can part them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    header = {"facts": json.dumps(state.facts, sort_keys=True)}
    write_bytes(directory / _FILE, safetensors.torch.save(tensors, metadata=header))


def load_state(directory: Path) -> State | None:
    """Return the state in ``directory``, ``None`` where there is none that can be read.

    What a killed writer left half-written is removed. A state that is damaged all the
    same (a full disk, a power cut) is worth nothing: training begins again.
    """
    for leftover in directory.glob(f".{_FILE}.*.tmp"):
        leftover.unlink(missing_ok=True)
    try:
        with safetensors.safe_open(directory / _FILE, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            # Copies: the file is about to be replaced by the next state.
            return State({name: file.get_tensor(name).clone() for name in file.keys()}, facts)  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None


def named_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors by name; its settings are not state, they follow from params and step."""
    state = optimizer.state_dict()["state"]
    return {f"{_PREFIX}/{index}/{name}": tensor for index, kept in state.items() for name, tensor in kept.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give ``optimizer`` the tensors that `named_optimizer_state` took; others in ``tensors`` are passed over."""
    kept: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix, *rest = key.split("/")
        if prefix == _PREFIX:
            kept.setdefault(int(rest[0]), {})[rest[1]] = tensor
    optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})
