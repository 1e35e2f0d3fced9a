"""A trained model on disk: its weights as safetensors, and a header that says what they belong to.

Equal models give equal bytes; nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from stillhouse.data.files import read_json, write_json
from stillhouse.errors import ParamsError, TrainingError
from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.base import Frozen
from stillhouse.params.base import build as validated
from stillhouse.params.model import ModelSpec

__all__ = ["Header", "load", "read_header", "read_weights", "save"]

_WEIGHTS = "model.safetensors"
_HEADER = "model.json"
#: Raised when a reader of an older Stillhouse could not make sense of the files.
_FORMAT = 1


class _Spec(Frozen):
    model: ModelSpec


@dataclass(frozen=True)
class Header:
    """What a checkpoint belongs to."""

    spec: ModelSpec
    """Architecture and size."""
    n_items: int
    """Items that it scores: the indices 1..n_items of its vocabulary."""
    vocabulary: str
    """Digest of that vocabulary."""
    repeat_items: bool
    """Whether it was trained where people take the same item again."""
    seed: int
    warm: bool
    """Whether an earlier night's weights were the start."""


def save(directory: Path, model: SequenceModel, header: Header) -> None:
    """Write ``model`` and ``header`` into ``directory``, which appears whole or not at all.

    Args:
        directory: must not exist; its parent must.
        model: on any device and in any precision; weights are written as float32.
        header: what the weights belong to.
    """
    for leftover in directory.parent.glob(f".{directory.name}.*.partial"):
        shutil.rmtree(leftover)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    partial.mkdir()
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    (partial / _WEIGHTS).write_bytes(safetensors.torch.save(weights))
    write_json(partial / _HEADER, _plain(header))
    partial.rename(directory)


def load(directory: Path, *, vocabulary: str | None = None) -> tuple[SequenceModel, Header]:
    """Return the model in ``directory``, in evaluation mode on the CPU, and its header.

    Args:
        directory: a checkpoint.
        vocabulary: digest of the vocabulary that its scores will be read with;
            ``None`` leaves that to the caller (another night's model).

    Raises:
        TrainingError: a file is missing or damaged, the weights are not those of the
            header's architecture, or the vocabulary is another one.
    """
    header = read_header(directory)
    if vocabulary is not None and vocabulary != header.vocabulary:
        raise TrainingError(
            f"a checkpoint must belong to the vocabulary it is read with, found {header.vocabulary[:12]} for "
            f"{vocabulary[:12]} ({directory / _HEADER}): train it again"
        )
    model = build(header.spec, header.n_items)
    weights = read_weights(directory)
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != expected:
        raise TrainingError(
            f"the weights of a checkpoint must be those of the model in its header, found other names, shapes or "
            f"types ({directory / _WEIGHTS}): train it again"
        )
    model.load_state_dict(weights)
    return model.eval(), header


def read_header(directory: Path) -> Header:
    """Return what the checkpoint in ``directory`` belongs to.

    Raises:
        TrainingError: there is no header, or it is not one that this version reads.
    """
    path = directory / _HEADER
    try:
        plain: dict[str, Any] = read_json(path)
        if plain.pop("format") != _FORMAT:
            raise ValueError("another format")
        spec = validated(_Spec, {"model": plain.pop("model")}, str(path)).model
        return Header(spec=spec, **plain)
    except FileNotFoundError:
        raise TrainingError(f"a checkpoint must hold {_HEADER}, found none in {directory}: train it again") from None
    except (ValueError, KeyError, TypeError, AttributeError, ParamsError) as error:
        raise TrainingError(f"{path} must describe a checkpoint of format {_FORMAT}, found {error}") from None


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Return the weights of the checkpoint in ``directory`` by name, on the CPU.

    Raises:
        TrainingError: the file is missing or cut off.
    """
    path = directory / _WEIGHTS
    try:
        return safetensors.torch.load(path.read_bytes())
    except FileNotFoundError:
        raise TrainingError(f"a checkpoint must hold {_WEIGHTS}, found none in {directory}: train it again") from None
    except safetensors.SafetensorError as error:
        raise TrainingError(f"{path} must be whole, found it damaged ({error}): train it again") from None


def _plain(header: Header) -> Mapping[str, Any]:
    return {
        "format": _FORMAT,
        "model": header.spec.model_dump(mode="json"),
        "n_items": header.n_items,
        "vocabulary": header.vocabulary,
        "repeat_items": header.repeat_items,
        "seed": header.seed,
        "warm": header.warm,
    }
