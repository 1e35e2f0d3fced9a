"""package: from a checkpoint to a directory that serves without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import nn

from stillhouse.data.files import sha256_file, sha256_tree, write_bytes, write_json, write_parquet
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import PackageError
from stillhouse.models import checkpoint
from stillhouse.models.quantised import keep_rounded
from stillhouse.package.compress import exportable, rounded
from stillhouse.package.export import IR_VERSION, OPSET, export_graph, serialise
from stillhouse.package.flops import flops_per_request
from stillhouse.package.parity import change, check_parity, real_histories
from stillhouse.params.model import GruSpec, TeacherSpec, TransformerSpec
from stillhouse.params.package import PackageParams
from stillhouse.reporting import Reporter

__all__ = ["FORMAT", "package"]

#: Version of the package's layout; a reader that knows another refuses.
FORMAT = 1


def package(  # the stage and what it makes share one name, which the stage's own argument must have
    *, student: Path, vocabulary: Path, sequences: Path, package: Path, params: PackageParams, reporter: Reporter
) -> Mapping[str, Any]:
    """Write the student as one ONNX graph with its vocabulary inside, checked against the checkpoint.

    A package of eight-bit weights is checked against the checkpoint with its matrices rounded in
    torch, so that parity says whether graph and model agree; what rounding itself changed is
    stated beside it.

    Args:
        student: a checkpoint.
        vocabulary: tonight's; the student's own.
        sequences: tonight's; parity is checked on their histories.
        package: the directory to make: ``model.onnx``, ``items.parquet``, ``package.json``.
        params: what the weights are kept in, and what must match.
        reporter: told what was found.

    Returns:
        Size (of the file, of the weights in it and of the item table an item, in bytes), cost,
        the parity that was found, and what rounding changed.

    Raises:
        PackageError: graph and checkpoint do not score alike, or the student was trained
            with another setting of ``repeat_items``.
        TrainingError: the checkpoint is damaged or another vocabulary's.
    """
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    events.require(words)
    model, header = checkpoint.load(student, vocabulary=words.digest)
    if header.repeat_items != params.repeat_items:
        raise PackageError(
            f"repeat_items must be what the student was trained with, got {params.repeat_items} for a student of "
            f"{header.repeat_items} (params.yaml: repeat_items): train it again"
        )
    keep_rounded(model)
    weights = _weights(header.spec, params)
    served = exportable(model, int8=weights == "int8")
    graph = export_graph(served, header.spec.length)
    metadata = _metadata(words, header.spec.length, params.repeat_items)
    data = serialise(graph, metadata)
    torch.set_num_threads(1)
    histories = real_histories(events, params.parity_histories, header.spec.length)
    expected = rounded(model) if weights == "int8" else model
    parity = check_parity(data, expected, histories, params.parity)
    changed = change(data, model, histories)
    reporter.note(
        f"parity {parity:.1e} over {len(histories)} histories, {len(data):,} bytes of {weights}, "
        f"scores within {changed['score_change']:.1e} of the checkpoint's"
    )
    figures = {
        **_parameters(model),
        **_sizes(served, words.n_items),
        "bytes": len(data),
        "flops": flops_per_request(graph),
        "parity": parity,
        **changed,
    }
    package.mkdir(parents=True)
    write_bytes(package / "model.onnx", data)
    write_parquet(package / "items.parquet", _items(words))
    write_json(
        package / "package.json",
        {
            **figures,
            "format": FORMAT,
            "weights": weights,
            "parity_limit": params.parity,
            "parity_histories": len(histories),
            "model": header.spec.model_dump(mode="json"),
            "n_items": words.n_items,
            "length": header.spec.length,
            "repeat_items": params.repeat_items,
            "seed": header.seed,
            "warm": header.warm,
            "opset": OPSET,
            "ir_version": IR_VERSION,
            "vocabulary": words.digest,
            "student": sha256_tree(student),
            "onnx": hashlib.sha256(data).hexdigest(),
            "items": sha256_file(package / "items.parquet"),
        },
    )
    return figures


def _metadata(words: Vocabulary, length: int, repeat_items: bool) -> dict[str, str]:
    """Return what travels inside the graph: all that turns ids into an answer."""
    return {
        "format": str(FORMAT),
        "item_ids": json.dumps(words.item_ids[1:], ensure_ascii=False),
        "length": str(length),
        "repeat_items": json.dumps(repeat_items),
        "vocabulary": words.digest,
    }


def _weights(spec: TeacherSpec, params: PackageParams) -> Literal["float32", "int8"]:
    """Return what the matrices of a student of ``spec`` are kept in."""
    if params.weights != "as_trained":
        return params.weights
    return spec.weights if isinstance(spec, TransformerSpec | GruSpec) else "float32"


def _parameters(model: nn.Module) -> dict[str, int]:
    table = {id(weight) for weight in model.get_submodule("items").parameters()}
    sizes = {id(weight): weight.numel() for weight in model.parameters()}
    return {
        "parameters": sum(sizes.values()),
        "parameters_without_embeddings": sum(size for key, size in sizes.items() if key not in table),
    }


def _sizes(served: nn.Module, n_items: int) -> dict[str, float | int]:
    """Return ``weight_bytes``, all that the model keeps, and ``bytes_per_item``, its item table's share."""
    sizes = {name: tensor.nbytes for name, tensor in served.state_dict().items()}
    table = sum(size for name, size in sizes.items() if name.startswith("items."))
    return {"weight_bytes": sum(sizes.values()), "bytes_per_item": round(table / n_items, 3)}


def _items(words: Vocabulary) -> pa.Table:
    columns = {
        "item_id": pa.array(words.item_ids[1:], pa.string()),
        "title": pa.array(words.titles[1:], pa.string()),
        "category": pa.array(words.categories[1:], pa.string()),
        "popularity": pa.array(words.popularity[1:], pa.int64()),
    }
    return pa.table(columns)
