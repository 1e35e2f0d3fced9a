"""The stage ``train_student``, taught by a teacher of seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stillhouse.data.files import sha256_tree, write_json, write_none
from stillhouse.errors import StoreError
from stillhouse.models.checkpoint import load
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.model import ComputeSpec, GruSpec, TrainingSpec, TransformerSpec
from stillhouse.params.train_student import DistillationSpec, StudentSpec, TrainStudentParams
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.export_soft_targets import export_soft_targets
from stillhouse.stages.train_student import train_student
from stillhouse.stages.train_teacher import train_teacher

COMPUTE = ComputeSpec(device="cpu", threads=1)
TRAINING = TrainingSpec(epochs=3, warm_epochs=1, batch_size=16, learning_rate=0.01, warmup_steps=2)
TEACHER = TrainTeacherParams(
    model=TransformerSpec(kind="transformer", width=16, blocks=1, heads=2, length=6, dropout=0.1),
    training=TRAINING,
    seed=1,
    repeat_items=False,
    compute=COMPUTE,
)
EXPORT = ExportSoftTargetsParams(
    k=4,
    tail_samples=2,
    temperatures=(1.0, 2.0),
    shard_positions=64,
    batch_size=16,
    seed=1,
    repeat_items=False,
    compute=COMPUTE,
)
PARAMS = TrainStudentParams(
    training=TRAINING,
    distillation=DistillationSpec(alpha=0.3, temperature=2.0),
    student=StudentSpec(model=GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.1)),
    seed=1,
    repeat_items=False,
    compute=COMPUTE,
)


@pytest.fixture(name="night")
def _night(make_sequences: Callable[..., tuple[Path, Path]], tmp_path: Path) -> dict[str, Path]:
    vocabulary, sequences = make_sequences([[(u + step) % 12 + 1 for step in range(7)] for u in range(30)])
    for name in ("resume_teacher", "resume_export"):
        (tmp_path / name).mkdir()
    write_none(tmp_path / "nothing")
    write_json(tmp_path / "checked.json", {"passed": True})
    data = {"vocabulary": vocabulary, "sequences": sequences}
    train_teacher(
        **data,
        previous_teacher=tmp_path / "nothing",
        teacher=tmp_path / "teacher",
        resume=tmp_path / "resume_teacher",
        params=TEACHER,
        reporter=SilentReporter(),
    )
    export_soft_targets(
        **data,
        teacher=tmp_path / "teacher",
        checked=tmp_path / "checked.json",
        soft_targets=tmp_path / "soft_targets",
        resume=tmp_path / "resume_export",
        params=EXPORT,
        reporter=SilentReporter(),
    )
    return data | {"soft_targets": tmp_path / "soft_targets", "previous_student": tmp_path / "nothing"}


def run(night: dict[str, Path], out: Path, student: dict[str, Any] | None = None, **params: Any) -> Mapping[str, Any]:
    """Run the stage into ``out``."""
    (resume := out.with_name(f"{out.name}_resume")).mkdir()
    spec = PARAMS.student.model_copy(update=student or {})
    return train_student(
        **night,
        student=out,
        resume=resume,
        params=PARAMS.model_copy(update={"student": spec, **params}),
        reporter=SilentReporter(),
    )


def test_a_student_is_distilled_and_both_parts_of_its_loss_are_told_apart(
    night: dict[str, Path], tmp_path: Path
) -> None:
    found = run(night, tmp_path / "student")
    assert found["start"] == "cold"
    assert found["loss"] == pytest.approx(0.3 * found["hard_loss"] + 0.7 * 2.0**2 * found["soft_loss"])
    assert load(tmp_path / "student")[1].spec == PARAMS.student.model


def test_two_runs_give_the_same_bytes_and_figures(night: dict[str, Path], tmp_path: Path) -> None:
    assert run(night, tmp_path / "one") == run(night, tmp_path / "two")
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_a_student_alone_hears_nothing_of_the_teacher(night: dict[str, Path], tmp_path: Path) -> None:
    found = run(night, tmp_path / "student", distillation=DistillationSpec(alpha=1.0, temperature=2.0))
    assert "soft_loss" not in found
    assert found["loss"] == found["hard_loss"]


def test_a_students_own_settings_stand_in_place_of_the_common_ones(night: dict[str, Path], tmp_path: Path) -> None:
    own = {
        "training": TRAINING.model_copy(update={"epochs": 2}),
        "distillation": DistillationSpec(alpha=0.5, temperature=1.0),
    }
    found = run(night, tmp_path / "student", student=own)
    assert found["epochs"] == 2
    assert found["loss"] == pytest.approx(0.5 * found["hard_loss"] + 0.5 * found["soft_loss"])


def test_last_nights_student_is_the_start(night: dict[str, Path], tmp_path: Path) -> None:
    run(night, tmp_path / "monday")
    found = run(night | {"previous_student": tmp_path / "monday"}, tmp_path / "tuesday")
    assert (found["start"], found["epochs"]) == ("warm", 1)


def test_a_temperature_that_the_store_lacks_is_refused(night: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="temperature must be one of the soft-target store's"):
        run(night, tmp_path / "student", distillation=DistillationSpec(alpha=0.3, temperature=3.0))
    assert not (tmp_path / "student").exists()
