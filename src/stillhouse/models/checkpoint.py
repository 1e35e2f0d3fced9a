"""A trained model on disk: its weights as safetensors, and a header that says what they belong to.

Equal models give equal bytes; nothing in a checkpoint is ever executed. A model that is
made of models holds a checkpoint of each in ``members/NAME``, and beside them its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pydantic
import safetensors
import safetensors.torch
from torch import Tensor

from stillhouse.data.files import read_json, sha256_file, write_bytes, write_json
from stillhouse.errors import ParamsError, TrainingError
from stillhouse.models.build import assemble, build
from stillhouse.models.composite import Composite
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import Recommender
from stillhouse.params.base import Frozen
from stillhouse.params.base import build as validated
from stillhouse.params.model import CrossFittedSpec, EnsembleSpec, TeacherSpec

__all__ = ["MEMBERS", "Header", "digest", "load", "read_header", "read_weights", "save", "size"]

#: Folder of the members of a model that is made of models.
MEMBERS = "members"

_WEIGHTS = "model.safetensors"
_HEADER = "model.json"
#: Raised, here and in `_File`, when a reader of an older Stillhouse could not make sense of the files.
_FORMAT = 1


class _File(Frozen):
    """The header's file as it must be."""

    format: Literal[1]
    model: TeacherSpec
    n_items: pydantic.StrictInt = pydantic.Field(ge=1, lt=2**31)
    vocabulary: pydantic.StrictStr
    repeat_items: pydantic.StrictBool
    seed: pydantic.StrictInt
    warm: pydantic.StrictBool


@dataclass(frozen=True)
class Header:
    """What a checkpoint belongs to."""

    spec: TeacherSpec
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


def save(directory: Path, model: Recommender, header: Header) -> None:
    """Write ``model`` and ``header`` into ``directory``, which appears whole or not at all.

    Args:
        directory: must not exist; its parent must.
        model: on any device and in any precision; weights are written as float32.
        header: what the weights belong to; members are written under the same, each with its own spec.
    """
    for leftover in directory.parent.glob(f".{directory.name}.*.partial"):
        shutil.rmtree(leftover)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    _write(partial, model, header)
    partial.rename(directory)


def _write(folder: Path, model: Recommender, header: Header) -> None:
    folder.mkdir(parents=True)
    weights = {name: _stored(tensor) for name, tensor in _own_state(model).items()}
    write_bytes(folder / _WEIGHTS, safetensors.torch.save(weights))
    write_json(folder / _HEADER, _plain(header))
    if isinstance(model, Composite):
        for name, member in _members(header).items():
            _write(folder / MEMBERS / name, model.members[name], member)


def load(directory: Path, *, vocabulary: str | None = None) -> tuple[Recommender, Header]:
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
    model = _empty(directory, header)
    weights = read_weights(directory)
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in _own_state(model).items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != expected:
        raise TrainingError(
            f"the weights of a checkpoint must be those of the model in its header, found other names, shapes or "
            f"types ({directory / _WEIGHTS}): train it again"
        )
    model.load_state_dict(weights, strict=not isinstance(model, Composite))
    for part in model.modules():
        if isinstance(part, ProductItems) and len(part.codes) and int(part.codes.max()) >= part.centroids.shape[1]:
            raise TrainingError(
                f"an item's codes must be below {part.centroids.shape[1]}, of which there are vectors, found "
                f"{int(part.codes.max())} ({directory / _WEIGHTS}): train it again"
            )
    return model.eval(), header


def _empty(directory: Path, header: Header) -> Recommender:
    """Return the model of ``header`` without its own weights; its members come with theirs.

    Raises:
        TrainingError: a member's checkpoint is missing, damaged or of something else.
    """
    if not isinstance(header.spec, EnsembleSpec | CrossFittedSpec):
        return build(header.spec, header.n_items)
    members = {}
    for name, expected in _members(header).items():
        members[name], found = load(directory / MEMBERS / name)
        if found != expected:
            raise TrainingError(
                f"a member must be what its ensemble's header says, found something else in "
                f"{directory / MEMBERS / name / _HEADER}: train it again"
            )
    return assemble(header.spec, header.n_items, members)


def digest(directory: Path) -> str:
    """Return what a checkpoint's weights are known by: the SHA-256 of its file, of several files that of their list."""
    files = _weight_files(directory)
    if len(files) == 1:
        return sha256_file(files[0])
    lines = [f"{sha256_file(file)}  {file.relative_to(directory).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def size(directory: Path) -> int:
    """Return the bytes of a checkpoint's weights, its members' included."""
    return sum(file.stat().st_size for file in _weight_files(directory))


def _weight_files(directory: Path) -> list[Path]:
    return sorted(directory.rglob(_WEIGHTS))


def _own_state(model: Recommender) -> dict[str, Tensor]:
    return model.own_state() if isinstance(model, Composite) else model.state_dict()


def _stored(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor


def _members(header: Header) -> dict[str, Header]:
    """Return the headers of the members of what ``header`` describes; none where it has no members."""
    if not isinstance(header.spec, EnsembleSpec | CrossFittedSpec):
        return {}
    return {name: replace(header, spec=spec) for name, spec in header.spec.parts.items()}


def read_header(directory: Path) -> Header:
    """Return what the checkpoint in ``directory`` belongs to.

    Raises:
        TrainingError: there is no header, or it is not one that this version reads.
    """
    path = directory / _HEADER
    try:
        found = validated(_File, read_json(path), str(path))
    except FileNotFoundError:
        raise TrainingError(f"a checkpoint must hold {_HEADER}, found none in {directory}: train it again") from None
    except (ValueError, ParamsError) as error:
        raise TrainingError(
            f"{path} must describe a checkpoint of format {_FORMAT}, found {error}: train it again"
        ) from None
    return Header(found.model, found.n_items, found.vocabulary, found.repeat_items, found.seed, found.warm)


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
