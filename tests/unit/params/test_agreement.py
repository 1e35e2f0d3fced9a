"""Sections of params.yaml that do not fit each other are found before a night is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.errors import ParamsError
from stillhouse.params.document import load_document

SHIPPED = Path(__file__).parents[3] / "params.yaml"
FRESH = {"train_student.distillation.start": "fresh"}
KNN = {"kind": "item_knn", "length": 50, "decay": 0.8}
TRANSFORMER = {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 50, "dropout": 0.0}


def written(folder: Path, changes: dict[str, Any]) -> Path:
    document = yaml.safe_load(SHIPPED.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        section = document
        for key in parents:
            section = section[key]
        section[last] = value
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def ensemble(*members: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "ensemble", "members": {f"m{place}": {"model": model} for place, model in enumerate(members)}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_teacher.model": KNN}, "start: teacher_items must have a teacher that scores by an item table"),
        ({"train_teacher.model": ensemble(KNN, KNN)}, "found one of kind ensemble"),
        (
            {
                "train_teacher.model": KNN,
                "export_soft_targets.hidden": True,
                "train_student.distillation.start": "fresh",
            },
            "hidden must be false for a teacher without states, found true and a teacher of kind item_knn",
        ),
        ({"train_student.distillation.methods": [{"kind": "features"}]}, "set it to true, or take another method"),
        (
            {"train_student.distillation.temperature": 3.0},
            r"temperatures \(1, 2, 4\), found 3",
        ),
        (
            {"train_student.distillation.temperature": {"kind": "linear", "start": 3.0, "end": 3.0}},
            r"temperatures \(1, 2, 4\), found 3",
        ),
        (
            {"export_soft_targets.windows": "all", "train_student.training.windows": "random"},
            r"windows must be last or all for a student that is taught, found random",
        ),
        (
            {
                "export_soft_targets.tail_samples": 0,
                "train_student.distillation.methods": [{"kind": "regression"}],
            },
            r"must find items drawn from the tail in the store, found export_soft_targets.tail_samples: 0",
        ),
        (
            {
                "export_soft_targets.k": 1,
                "train_student.distillation.methods": [{"kind": "regression", "draws": False}],
            },
            r"the method regression must see two scores or more, found export_soft_targets.k: 1",
        ),
        ({"export_soft_targets.k": 1}, r"two scores or more to standardise them, found export_soft_targets.k: 1"),
        (
            {"train_student.training.windows": "random"},
            r"windows must be last for a student that is taught, found random .*: train_student.training.windows\)",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=expected) as refused:
        load_document(written(tmp_path, changes))
    assert "\n" not in str(refused.value)


def test_a_students_own_section_is_the_one_that_is_named(tmp_path: Path) -> None:
    own = {"alpha": 0.5, "temperature": 1.0, "methods": [{"kind": "features"}]}
    with pytest.raises(ParamsError, match=r"params.yaml: students.gru.distillation.methods"):
        load_document(written(tmp_path, {"students.gru.distillation": own | {"start": "fresh"}}))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"students.gru.training": {"epochs": 60}}, "students.gru.training"),
        ({"students.gru.training": {}}, "students.gru.training"),
        (
            {
                "train_teacher.model": {
                    "kind": "ensemble",
                    "members": {"one": {"model": TRANSFORMER, "training": {"epochs": 60}}, "knn": {"model": KNN}},
                }
            },
            "train_teacher.model.members.one.training",
        ),
    ],
)
def test_a_training_of_its_own_must_set_what_the_common_one_sets(
    changes: dict[str, Any], place: str, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=rf"{place} stands in place of .*, found no .*batch_size"):
        load_document(written(tmp_path, changes))


def test_a_distillation_of_its_own_must_set_what_the_common_one_sets(tmp_path: Path) -> None:
    own = {"alpha": 0.5, "temperature": 1.0}
    with pytest.raises(ParamsError, match=r"students.gru.distillation stands in place of .*, found no methods, start"):
        load_document(written(tmp_path, {"students.gru.distillation": own}))
    for alone in (1, "1.0", {"kind": "constant", "value": 1.0}):  # nothing else of it counts
        load_document(written(tmp_path, {"students.gru.distillation": own | {"alpha": alone}}))


def test_a_students_own_windows_are_the_ones_that_are_named(tmp_path: Path) -> None:
    own = yaml.safe_load(SHIPPED.read_text())["train_student"]["training"] | {"windows": "all"}
    with pytest.raises(ParamsError, match=r"found all \(params.yaml: students.gru.training.windows\)"):
        load_document(written(tmp_path, {"students.gru.training": own}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_student.training.windows": "random", "train_student.distillation": {"alpha": 1.0, "temperature": 1.0}},
        {"train_teacher.training.windows": "all"},
        {"export_soft_targets.windows": "all"},
        {"export_soft_targets.windows": "all", "train_student.training.windows": "all"},
        {"train_teacher.model": KNN, **FRESH},
        {"train_teacher.model": ensemble(TRANSFORMER, KNN)},
        {"export_soft_targets.hidden": True, "train_student.distillation.methods": [{"kind": "features"}]},
        {"train_student.distillation.temperature": {"kind": "linear", "start": 3.0, "end": 1.0}},
        {"train_student.distillation": {"alpha": 1.0, "temperature": 3.0, "methods": [{"kind": "features"}]}},
    ],
)
def test_what_fits_is_taken(changes: dict[str, Any], tmp_path: Path) -> None:
    load_document(written(tmp_path, changes))
