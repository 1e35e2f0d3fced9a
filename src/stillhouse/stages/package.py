"""package: from a checkpoint to a directory that serves without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from stillhouse.data.files import sha256_file, sha256_tree, write_bytes, write_json, write_parquet
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import PackageError
from stillhouse.models import checkpoint
from stillhouse.package.export import IR_VERSION, OPSET, export_graph, serialise
from stillhouse.package.flops import flops_per_request
from stillhouse.package.parity import check_parity, real_histories
from stillhouse.params.package import PackageParams
from stillhouse.reporting import Reporter

__all__ = ["FORMAT", "package"]

#: Version of the package's layout; a reader that knows another refuses.
FORMAT = 1


def package(  # the stage and what it makes share one name, which the stage's own argument must have
    *, student: Path, vocabulary: Path, sequences: Path, package: Path, params: PackageParams, reporter: Reporter
) -> Mapping[str, Any]:
    """Write the student as one ONNX graph with its vocabulary inside, checked against the checkpoint.

    Args:
        student: a checkpoint.
        vocabulary: tonight's; the student's own.
        sequences: tonight's; parity is checked on their histories.
        package: the directory to make: ``model.onnx``, ``items.parquet``, ``package.json``.
        params: what must match.
        reporter: told what was found.

    Returns:
        Size, cost and the parity that was found.

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
    graph = export_graph(model, header.spec.length)
    metadata = _metadata(words, header.spec.length, params.repeat_items)
    data = serialise(graph, metadata)
    torch.set_num_threads(1)
    histories = real_histories(events, params.parity_histories, header.spec.length)
    parity = check_parity(data, model, histories, params.parity)
    reporter.note(f"parity {parity:.1e} over {len(histories)} histories, {len(data):,} bytes")
    figures = {**_parameters(model), "bytes": len(data), "flops": flops_per_request(graph), "parity": parity}
    package.mkdir(parents=True)
    write_bytes(package / "model.onnx", data)
    write_parquet(package / "items.parquet", _items(words))
    write_json(
        package / "package.json",
        {
            **figures,
            "format": FORMAT,
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


def _parameters(model: nn.Module) -> dict[str, int]:
    inside = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return {
        "parameters": sum(sizes.values()),
        "parameters_without_embeddings": sum(size for key, size in sizes.items() if key not in inside),
    }


def _items(words: Vocabulary) -> pa.Table:
    columns = {
        "item_id": pa.array(words.item_ids[1:], pa.string()),
        "title": pa.array(words.titles[1:], pa.string()),
        "category": pa.array(words.categories[1:], pa.string()),
        "popularity": pa.array(words.popularity[1:], pa.int64()),
    }
    return pa.table(columns)
