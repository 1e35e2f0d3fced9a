"""The stage ``train_student``, taught by a teacher of seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stillhouse.data.files import sha256_tree, write_json, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.protocol import Lesson, PositionBatch
from stillhouse.distill.start import ITEMS, truncated
from stillhouse.errors import StoreError
from stillhouse.models.checkpoint import load
from stillhouse.params.distillation import DistillationSpec
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.model import ComputeSpec, GruSpec, TrainingSpec, TransformerSpec
from stillhouse.params.train_student import StudentSpec, TrainStudentParams
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.export_soft_targets import export_soft_targets
from stillhouse.stages.train_student import train_student
from stillhouse.stages.train_teacher import train_teacher
from stillhouse.train import loop

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


def distilled(**settings: Any) -> DistillationSpec:
    """Return the settings of a distillation as params.yaml has them."""
    return DistillationSpec.model_validate({"alpha": 0.3, "temperature": 1.0} | settings)


def test_methods_are_mixed_and_each_is_told_apart(night: dict[str, Path], tmp_path: Path) -> None:
    kinds = ["soft", "pseudo_labels", "regression", "rejuvenated", "rank_sampling", "listwise", "relations"]
    mixed = distilled(methods=[{"kind": kind, "weight": 0.5} for kind in kinds])
    found = run(night, tmp_path / "student", distillation=mixed)
    names = {name for name in found if name.endswith("_loss") and name != "hard_loss"}
    assert len(names) == len(kinds)
    # At temperature 1 nothing is scaled.
    expected = 0.3 * found["hard_loss"] + 0.7 * 0.5 * sum(found[name] for name in names)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert run(night, tmp_path / "again", distillation=mixed) == found
    assert sha256_tree(tmp_path / "student") == sha256_tree(tmp_path / "again")


def test_the_hard_loss_runs_over_what_the_training_says(night: dict[str, Path], tmp_path: Path) -> None:
    for alpha in (0.3, 1.0):
        losses = []
        for candidates in ("unseen", "all"):
            training = TRAINING.model_copy(update={"epochs": 1, "learning_rate": 1e-9, "candidates": candidates})
            name = f"{candidates}-{alpha}"
            losses.append(
                run(night, tmp_path / name, training=training, distillation=distilled(alpha=alpha))["hard_loss"]
            )
        assert losses[0] < losses[1], "fewer items compete for the same probability"


def test_smoothed_labels_train_a_student_alone(night: dict[str, Path], tmp_path: Path) -> None:
    alone = run(night, tmp_path / "alone", distillation=distilled(alpha=1.0))
    smoothed = run(night, tmp_path / "smoothed", distillation=distilled(alpha=1.0, label_smoothing=0.2))
    assert smoothed["loss"] > smoothed["hard_loss"]
    assert alone["loss"] == alone["hard_loss"]


def test_a_student_of_the_teachers_own_kind_and_size_is_born_again(night: dict[str, Path], tmp_path: Path) -> None:
    found = run(night, tmp_path / "student", student={"model": TEACHER.model})
    assert load(tmp_path / "student")[1].spec == TEACHER.model
    assert found["soft_loss"] > 0.0


def test_a_cold_student_starts_with_the_teachers_items(night: dict[str, Path], tmp_path: Path) -> None:
    table = load(tmp_path / "teacher")[0].items.weight.detach()
    still = {"training": TRAINING.model_copy(update={"epochs": 1, "learning_rate": 1e-9})}
    run(night, tmp_path / "student", student=still, distillation=distilled(start="teacher_items"))
    found = load(tmp_path / "student")[0].items.weight.detach()
    torch.testing.assert_close(found, truncated(table.half().float(), 8), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "teacher_items"}, "must hold the teacher's item table"),
        ({"methods": [{"kind": "features"}]}, "must hold the teacher's states"),
    ],
)
def test_what_the_store_does_not_hold_is_refused_before_training(
    night: dict[str, Path], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    (night["soft_targets"] / ITEMS).unlink(missing_ok=True)
    with pytest.raises(StoreError, match=said):
        run(night, tmp_path / "student", distillation=distilled(**settings))
    assert not (tmp_path / "student").exists()


def exported(night: dict[str, Path], tmp_path: Path, name: str, **changes: Any) -> dict[str, Path]:
    """``night`` with a store called ``name``, which ``changes`` of the settings make another one."""
    (resume := tmp_path / f"resume_{name}").mkdir()
    export_soft_targets(
        vocabulary=night["vocabulary"],
        sequences=night["sequences"],
        teacher=tmp_path / "teacher",
        checked=tmp_path / "checked.json",
        soft_targets=tmp_path / name,
        resume=resume,
        params=EXPORT.model_copy(update=changes),
        reporter=SilentReporter(),
    )
    return night | {"soft_targets": tmp_path / name}


@pytest.fixture(name="night_with_states")
def _night_with_states(night: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return exported(night, tmp_path, "states", hidden=True)


@pytest.fixture(name="night_with_copies")
def _night_with_copies(night: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return exported(night, tmp_path, "copies", copies=2, substituted=0.5)


def test_a_student_hears_the_teacher_on_copies_of_histories_and_learns_no_label_from_them(
    night: dict[str, Path], night_with_copies: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, labels = [], []
    mixed = MixedObjective.lesson

    def lesson(self: MixedObjective, batch: PositionBatch) -> Lesson:
        asked.append(batch.users)
        labels.append(batch.weights)
        assert (self._store.position_ids(batch.users.numpy(), batch.steps.numpy()) >= 0).all()
        return mixed(self, batch)

    monkeypatch.setattr(MixedObjective, "lesson", lesson)
    found = run(night_with_copies, tmp_path / "copied", distillation=distilled(alpha=0.0))
    users, weights = torch.cat(asked), torch.cat(labels)
    assert set(users.tolist()) == set(range(90)), "thirty people, two copies each"
    assert bool((weights[users >= 30] == 0).all())
    assert bool((weights[users < 30] > 0).all())
    once = run(night, tmp_path / "plain", distillation=distilled(alpha=0.0))
    assert found["soft_loss"] != once["soft_loss"]
    assert sha256_tree(tmp_path / "copied") != sha256_tree(tmp_path / "plain")


def test_windows_that_the_teacher_was_not_asked_about_are_refused(night: dict[str, Path], tmp_path: Path) -> None:
    wide = PARAMS.training.model_copy(update={"windows": "all"})
    with pytest.raises(
        StoreError, match=r"windows must be last or the soft-target store's, got all of a store of last"
    ):
        run(night, tmp_path / "student", training=wide)
    run(night, tmp_path / "alone", training=wide, distillation=distilled(alpha=1.0))


def test_of_a_store_of_all_windows_a_student_hears_at_every_position(
    night: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {name: night[name] for name in ("vocabulary", "sequences")}
    short = TEACHER.model_copy(update={"model": TEACHER.model.model_copy(update={"length": 2})})
    (tmp_path / "resume_short").mkdir()
    shutil.rmtree(tmp_path / "teacher")
    reporter = SilentReporter()
    made = {"teacher": tmp_path / "teacher", "resume": tmp_path / "resume_short"}
    train_teacher(**data, **made, previous_teacher=tmp_path / "nothing", params=short, reporter=reporter)
    heard: list[tuple[int, int]] = []
    mixed = MixedObjective.lesson

    def lesson(self: MixedObjective, batch: PositionBatch) -> Lesson:
        assert (self._store.position_ids(*batch.places) >= 0).all()
        heard.extend(zip(batch.users.tolist(), batch.steps.tolist(), strict=True))
        return mixed(self, batch)

    monkeypatch.setattr(MixedObjective, "lesson", lesson)
    spec = {"model": PARAMS.student.model.model_copy(update={"length": 2})}
    once = TRAINING.model_copy(update={"epochs": 1, "windows": "all"})
    run(exported(night, tmp_path, "whole", windows="all"), tmp_path / "student", spec, training=once)
    trained = Sequences.open(night["sequences"]).train_length.tolist()
    assert sorted(heard) == [(user, step) for user, length in enumerate(trained) for step in range(length - 1)]
    assert max(trained) > 3, "or no history is longer than a window"


def test_a_student_alone_is_the_same_with_copies_in_the_store(
    night: dict[str, Path], night_with_copies: dict[str, Path], tmp_path: Path
) -> None:
    alone = DistillationSpec(alpha=1.0, temperature=2.0)
    assert run(night, tmp_path / "plain", distillation=alone) == run(
        night_with_copies, tmp_path / "copied", distillation=alone
    )
    assert sha256_tree(tmp_path / "plain") == sha256_tree(tmp_path / "copied")


@pytest.mark.parametrize("cosine", [False, True])
def test_a_student_comes_nearer_to_the_teachers_states(
    night_with_states: dict[str, Path], tmp_path: Path, cosine: bool
) -> None:
    mix = distilled(alpha=0.0, methods=[{"kind": "features", "cosine": cosine}])
    found = {}
    for epochs in (1, 12):
        training = TRAINING.model_copy(update={"epochs": epochs, "patience": epochs, "warmup_steps": 0})
        found[epochs] = run(night_with_states, tmp_path / f"{epochs}", training=training, distillation=mix)
    assert found[12]["epochs"] == 12
    assert 0.0 < found[12]["feature_loss"] < 0.8 * found[1]["feature_loss"]
    assert found[12]["loss"] == pytest.approx(found[12]["feature_loss"])


def test_relations_look_at_the_teachers_states_where_the_store_holds_them(
    night: dict[str, Path], night_with_states: dict[str, Path], tmp_path: Path
) -> None:
    mix = distilled(methods=[{"kind": "relations"}])
    without = run(night, tmp_path / "without", distillation=mix)
    assert run(night_with_states, tmp_path / "with", distillation=mix)["relation_loss"] != without["relation_loss"]


def test_states_that_no_method_reads_change_nothing(
    night: dict[str, Path], night_with_states: dict[str, Path], tmp_path: Path
) -> None:
    assert run(night, tmp_path / "without") == run(night_with_states, tmp_path / "with")
    assert sha256_tree(tmp_path / "without") == sha256_tree(tmp_path / "with")


class _Killed(BaseException):
    """Ends a run in the middle."""


class _Kills(SilentReporter):
    """Lets so many batches be trained and no more."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Any]:
        yield SimpleNamespace(advance=self._advance)

    def _advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise _Killed


def test_a_run_killed_while_its_schedules_move_ends_with_the_same_bits(
    night: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules follow progress and batch alone, and so do draws: nothing of them is in the state of a run."""
    monkeypatch.setattr(loop, "_SAVE_EVERY", 0.0)
    moving = distilled(
        alpha={"kind": "adaptive", "sure": 0.1, "unsure": 0.6},
        temperature={"kind": "cosine", "start": 2.0, "end": 1.0},
        methods=[{"kind": "soft"}, {"kind": "listwise", "samples": 2}, {"kind": "relations", "positions": 8}],
        trust="by_confidence",
        finetune=0.3,
    )
    whole = run(night, tmp_path / "whole", distillation=moving)
    (resume := tmp_path / "resume").mkdir()
    params = PARAMS.model_copy(update={"distillation": moving})
    for batches in (1, 4, 5):
        with pytest.raises(_Killed):
            train_student(**night, student=tmp_path / "killed", resume=resume, params=params, reporter=_Kills(batches))
    found = train_student(**night, student=tmp_path / "killed", resume=resume, params=params, reporter=SilentReporter())
    assert found == whole
    assert sha256_tree(tmp_path / "killed") == sha256_tree(tmp_path / "whole")


def test_a_student_starts_from_the_item_table_that_the_export_keeps(night: dict[str, Path], tmp_path: Path) -> None:
    """One step at a rate of nearly nothing leaves the start as it was: the teacher's table at the student's width."""
    still = TRAINING.model_copy(update={"epochs": 1, "learning_rate": 1e-12})
    mix = DistillationSpec(alpha=0.3, temperature=2.0, start="teacher_items")
    run(night, tmp_path / "student", training=still, distillation=mix)
    student, _ = load(tmp_path / "student")
    teacher, _ = load(tmp_path / "teacher")
    width = student.items.weight.shape[1]
    expected = truncated(teacher.items.weight.detach(), width)
    torch.testing.assert_close(student.items.weight.detach(), expected, atol=5e-3, rtol=5e-2)
