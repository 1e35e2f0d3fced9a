"""Fixtures that unit tests of several packages share. No torch here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from stillhouse.data.files import sha256_tree, write_json, write_parquet
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.tracking.store import connect


@pytest.fixture(scope="session")
def _tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("tracking-template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        path = workspace / "mlflow.db"
        SqlAlchemyStore(f"sqlite:///{path}", str(workspace)).engine.dispose()
    return path


@pytest.fixture
def workspace(_tracking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a real MLflow on SQLite, empty: its database is made once a session and copied."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".stillhouse").mkdir()
    shutil.copyfile(_tracking, tmp_path / ".stillhouse" / "mlflow.db")
    return tmp_path


@pytest.fixture
def client(workspace: Path) -> Any:
    """MLflow's own client on the workspace's database."""
    return connect(workspace).client


@pytest.fixture
def registration(make_sequences: Callable[..., tuple[Path, Path]], make_package: Callable[..., Path]) -> dict[str, Any]:
    """The arguments of `register_student` after the workspace, but the run. After ``i2`` the package says ``i3``."""
    vocabulary, _ = make_sequences([[1, 2, 3], [2, 1, 4]])
    package = make_package(vocabulary, name="gru")
    return {
        "package": package,
        "night": "2026-03-12",
        "name": "gru",
        "digest": sha256_tree(package),
        "statement": b'{"about": "gru"}\n',
        "card": "# gru\n",
        "metrics": {"leave_one_out": {"ndcg_at_10": 0.25}, "time_window": None},
        "verdict": "passed",
        "reason": "the bound clears the margin",
        "histories": [["i1", "i2"], ["i3"]],
    }


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a package whose scores are known: ``make_package(vocabulary, table)``.

    ``table[last]`` are the scores after a history that ends with the item ``last``: float [n_items + 1, n_items + 1],
    without column 0's mask. By default the item after ``last`` comes first, then the one after that, in a circle.
    """

    def make(
        vocabulary: Path,
        table: ArrayLike | None = None,
        *,
        length: int = 8,
        repeat_items: bool = False,
        name: str = "planted",
    ) -> Path:
        words = Vocabulary.load(vocabulary)
        n = words.n_items
        circle = [
            [0.0 if not last else -float((item - last - 1) % n) for item in range(n + 1)] for last in range(n + 1)
        ]
        scores = np.array(circle if table is None else table, dtype=np.float32)
        scores[:, 0] = -np.inf
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        data = _graph(scores, length, _metadata(words, length, repeat_items)).SerializeToString()
        (folder / "model.onnx").write_bytes(data)
        write_parquet(folder / "items.parquet", _items(words))
        write_json(folder / "package.json", _card(len(data), n, length, repeat_items, words.digest))
        return folder

    return make


def _graph(table: np.ndarray, length: int, metadata: dict[str, str]) -> onnx.ModelProto:
    constants = {"table": table, "zero": np.int64(0), "one": np.int64(1), "columns": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Equal", ["histories", "zero"], ["padding"]),
        helper.make_node("Not", ["padding"], ["real"]),
        helper.make_node("Cast", ["real"], ["counted"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["counted", "columns"], ["count"], keepdims=1),
        helper.make_node("Sub", ["count", "one"], ["before"]),
        helper.make_node("Max", ["before", "zero"], ["place"]),
        helper.make_node("GatherElements", ["histories", "place"], ["last"], axis=1),
        helper.make_node("Squeeze", ["last", "columns"], ["item"]),
        helper.make_node("Gather", ["table", "item"], ["scores"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("histories", TensorProto.INT64, ["batch", length])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", table.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, metadata)
    return model


def _metadata(words: Vocabulary, length: int, repeat_items: bool) -> dict[str, str]:
    return {
        "format": "1",
        "item_ids": json.dumps(words.item_ids[1:]),
        "length": str(length),
        "repeat_items": json.dumps(repeat_items),
        "vocabulary": words.digest,
    }


def _items(words: Vocabulary) -> object:
    import pyarrow as pa

    return pa.table(
        {
            "item_id": pa.array(words.item_ids[1:], pa.string()),
            "title": pa.array(words.titles[1:], pa.string()),
            "category": pa.array(words.categories[1:], pa.string()),
            "popularity": pa.array(words.popularity[1:], pa.int64()),
        }
    )


def _card(size: int, n_items: int, length: int, repeat_items: bool, digest: str) -> dict[str, object]:
    return {
        "format": 1,
        "bytes": size,
        "flops": 0,
        "parameters": (n_items + 1) ** 2,
        "parameters_without_embeddings": 0,
        "parity": 0.0,
        "parity_limit": 1e-4,
        "length": length,
        "n_items": n_items,
        "repeat_items": repeat_items,
        "vocabulary": digest,
    }
