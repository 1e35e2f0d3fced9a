"""The stage package: a directory that serves, from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from stillhouse.data.files import read_json, sha256_file, sha256_tree
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import PackageError, TrainingError
from stillhouse.models import checkpoint
from stillhouse.models.build import build
from stillhouse.models.quantised import keep_rounded
from stillhouse.package.compress import rounded
from stillhouse.package.export import export_graph
from stillhouse.params.model import TransformerSpec
from stillhouse.params.package import PackageParams
from stillhouse.reporting import SilentReporter
from stillhouse.serve.student import Student
from stillhouse.stages.package import package

SPEC = TransformerSpec(kind="transformer", width=8, blocks=1, heads=1, length=4, dropout=0.0)
HISTORIES = [[1, 2, 3, 4, 5], [2, 1, 5], [4], [5, 4, 3, 2]]


_GRAPHS: dict[str, onnx.ModelProto] = {}


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Export the same weights once for all tests: it takes seconds."""

    def once(model: torch.nn.Module, length: int) -> onnx.ModelProto:
        form = str({name: (weight.dtype, weight.double().sum()) for name, weight in model.state_dict().items()})
        if form not in _GRAPHS:
            _GRAPHS[form] = export_graph(model, length)
        graph = onnx.ModelProto()
        graph.CopyFrom(_GRAPHS[form])
        return graph

    if "equal_bytes" not in request.node.name:
        monkeypatch.setattr("stillhouse.stages.package.export_graph", once)


@pytest.fixture
def run(make_sequences, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    vocabulary, sequences = make_sequences(HISTORIES, categories=["a", None, "b", "b", "a|b"])

    def stage(
        name: str = "one",
        *,
        digest: str | None = None,
        repeat_items: bool = False,
        trained: str = "float32",
        **params: Any,
    ):
        student = tmp_path / f"student-{name}"
        spec = SPEC.model_copy(update={"weights": trained})
        header = checkpoint.Header(spec, 5, digest or Vocabulary.load(vocabulary).digest, False, 1, False)
        checkpoint.save(student, build(spec, 5, seed=1), header)
        settings = PackageParams(**{"parity": 1e-4, "parity_histories": 3, "repeat_items": repeat_items, **params})
        metrics = package(
            student=student,
            vocabulary=vocabulary,
            sequences=sequences,
            package=tmp_path / name,
            params=settings,
            reporter=SilentReporter(),
        )
        return tmp_path / name, dict(metrics)

    return stage


def test_the_package_serves_what_the_checkpoint_scores(run) -> None:
    folder, _ = run()
    model, _ = checkpoint.load(folder.parent / "student-one")
    answer = Student.load(folder).recommend(["i2", "i1"], k=5)
    with torch.no_grad():
        scores = model(torch.tensor([[2, 1, 0, 0]]))[0]
    expected = sorted((3, 4, 5), key=lambda item: -float(scores[item]))
    assert [item.item_id for item in answer.items] == [f"i{item}" for item in expected]
    assert answer.items[0].score == pytest.approx(float(scores[expected[0]]), abs=1e-5)
    assert answer.items[0].title == f"Item {expected[0]}"


def test_the_card_says_what_it_is_and_what_it_was_made_from(run) -> None:
    folder, metrics = run()
    card = read_json(folder / "package.json")
    assert sorted(path.name for path in folder.iterdir()) == ["items.parquet", "model.onnx", "package.json"]
    assert card["bytes"] == metrics["bytes"] == (folder / "model.onnx").stat().st_size
    assert card["onnx"] == sha256_file(folder / "model.onnx")
    assert card["items"] == sha256_file(folder / "items.parquet")
    assert card["student"] == sha256_tree(folder.parent / "student-one")
    assert card["model"] == SPEC.model_dump(mode="json")
    assert (card["n_items"], card["length"], card["repeat_items"], card["parity_limit"]) == (5, 4, False, 1e-4)
    assert 0 <= card["parity"] <= 1e-4
    assert card["parity_histories"] == 3
    assert card["flops"] > 0
    assert card["parameters"] - card["parameters_without_embeddings"] == 6 * 8


@pytest.mark.parametrize(
    ("trained", "weights", "kept"),
    [
        ("float32", "as_trained", "float32"),
        ("float32", "int8", "int8"),
        ("int8", "as_trained", "int8"),
        ("int8", "float32", "float32"),
    ],
)
def test_every_form_serves_the_list_of_the_checkpoint_in_that_form(run, trained: str, weights: str, kept: str) -> None:
    folder, metrics = run(trained=trained, weights=weights)
    model, _ = checkpoint.load(folder.parent / "student-one")
    keep_rounded(model)
    expected = rounded(model) if kept == "int8" else model
    packaged = Student.load(folder).packaged
    histories = np.array([[1, 2, 3, 4], [5, 4, 0, 0], [3, 0, 0, 0]])
    with torch.no_grad():
        scores = expected(torch.from_numpy(histories))[:, 1:]
    found = torch.from_numpy(packaged.scores(histories)[:, 1:])
    torch.testing.assert_close(found, scores, atol=1e-6, rtol=1e-5)
    assert torch.equal(found.argsort(descending=True), scores.argsort(descending=True))
    assert read_json(folder / "package.json")["weights"] == kept
    assert metrics["parity"] < 1e-6
    # A student that was trained for eight bits loses nothing by them; another one does.
    assert (metrics["score_change"] > 1e-5) == (trained != kept == "int8")
    assert 0.0 <= metrics["top_10_kept"] <= 1.0


def test_eight_bits_are_a_quarter_of_the_weights_and_two_bytes_a_row(run) -> None:
    whole, small = run("whole")[1], run("small", weights="int8")[1]
    assert (whole["bytes_per_item"], small["bytes_per_item"]) == (6 * 8 * 4 / 5, 6 * (8 + 2) / 5)
    assert small["weight_bytes"] < 0.45 * whole["weight_bytes"]
    assert small["parameters"] == whole["parameters"]
    assert small["parameters_without_embeddings"] == whole["parameters_without_embeddings"]


def test_two_packages_of_one_checkpoint_are_equal_bytes(run) -> None:
    assert sha256_tree(run("one")[0]) == sha256_tree(run("two")[0])


def test_a_difference_beyond_the_limit_is_refused(run) -> None:
    with pytest.raises(PackageError, match=r"must agree within 1e-30 .*params.yaml: package.parity"):
        run(parity=1e-30)


def test_another_setting_of_repeat_items_is_refused(run) -> None:
    with pytest.raises(PackageError, match="repeat_items must be what the student was trained with, got True"):
        run(repeat_items=True)


def test_another_vocabulary_is_refused(run) -> None:
    with pytest.raises(TrainingError, match="must belong to the vocabulary"):
        run(digest="0" * 64)
