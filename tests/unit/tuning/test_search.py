from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
import yaml

from stillhouse.data.files import sha256_tree
from stillhouse.errors import NightError, ParamsError, TrainingError
from stillhouse.params.distillation import ConstantAlpha, ConstantTemperature
from stillhouse.params.document import load_document
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.reporting import Reporter
from stillhouse.tuning.search import Request, Result, search
from stillhouse.tuning.study import Draft, Pruned


def run(night: Path, trials: int = 3, **more: Any) -> Result:
    return search(Request(night, "small", trials=trials, **more))


def facts(result: Result) -> list[tuple[Any, ...]]:
    return [(one.values, one.ndcg_at_10, one.end, one.epochs, one.stands) for one in result.trials]


Said = Callable[[TrainStudentParams], list[float]]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Said], None]:
    """Give a function that puts a made stage in place of training: ``stage(params → the figure of each epoch)``."""

    def put(said: Said) -> None:
        def train_student(
            *,
            vocabulary: Path,
            sequences: Path,
            soft_targets: Path,
            previous_student: Path,
            student: Path,
            resume: Path,
            params: TrainStudentParams,
            reporter: Reporter,
        ) -> Mapping[str, float]:
            figures = said(params)
            for epoch, figure in enumerate(figures):
                reporter.metrics({"valid_ndcg_at_10": figure}, epoch)
            return {"valid_ndcg_at_10": max(figures)}

        monkeypatch.setattr("stillhouse.tuning.search.load_stage", lambda _: (train_student, TrainStudentParams))

    return put


def by_alpha(params: TrainStudentParams) -> list[float]:
    """Be the better, the closer alpha is to 0.2."""
    assert params.student.distillation is not None
    assert isinstance(params.student.distillation.alpha, ConstantAlpha)
    return [0.5 - 0.1 * abs(params.student.distillation.alpha.value - 0.2)] * 3


def test_a_search_trains_students_from_the_store_and_its_patch_is_accepted(night: Path, heard: Any) -> None:
    before = {name: sha256_tree(night / name) for name in ("data", "models", "previous", "params.yaml")}
    result = run(night, trials=3)
    assert [one.epochs for one in result.trials] == [2, 2, 2]
    assert result.trials[0].stands
    assert result.stands.values == {"alpha": 0.3, "temperature": 1.0, "learning_rate": 0.002}
    assert (result.best.ndcg_at_10 or 0.0) >= (result.stands.ndcg_at_10 or 0.0)
    assert {name: sha256_tree(night / name) for name in before} == before, "a search writes to nothing of the night"
    assert not result.best.stands, "or this test shows less than it says"
    subprocess.run(["git", "init", "-q"], cwd=night, check=True)
    subprocess.run(["git", "apply", "--check", str(result.patch)], cwd=night, check=True)
    subprocess.run(["git", "apply", str(result.patch)], cwd=night, check=True)
    document, plain = load_document(night / "params.yaml")
    student = document.students["small"]
    assert student.training is not None
    assert student.distillation is not None
    assert student.training.learning_rate == result.best.values["learning_rate"]
    assert student.distillation.alpha == ConstantAlpha(kind="constant", value=result.best.values["alpha"])
    assert plain["students"]["small"]["training"]["epochs"] == 2
    assert heard.files == ["importance.png", "params.tune.small.patch"]


def test_epochs_with_rows_of_their_own_are_epochs_of_a_trial(night: Path, heard: Any) -> None:
    document = yaml.safe_load((night / "params.yaml").read_text())
    document["students"]["small"]["model"]["items"] = {"splits": 2, "codes": 4}
    document["train_student"]["training"] |= {"epochs": 4, "own_rows": 0.5}
    (night / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    result = run(night, trials=2)
    assert [one.epochs for one in result.trials] == [4, 4]


def test_a_search_that_was_killed_goes_on_from_the_saved_step(
    night: Path, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(night, epochs=2)
    monkeypatch.setattr("stillhouse.tuning.search.STATE", ".elsewhere")
    loop = "stillhouse.train.loop._Run._close_epoch"
    closed, plain = [], load(loop)

    def cut(self: Any, seconds: float) -> None:
        plain(self, seconds)
        closed.append(self.place.epoch)
        if len(closed) == 3:  # the second trial's first epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, cut)
        with pytest.raises(KeyboardInterrupt):
            run(night, epochs=2)
    begun: list[int] = []
    epoch = load("stillhouse.train.loop._Run._epoch")
    monkeypatch.setattr(
        "stillhouse.train.loop._Run._epoch", lambda self, bar: (begun.append(self.place.epoch), epoch(self, bar))
    )
    again = run(night, epochs=2)
    assert facts(again) == facts(unbroken)
    assert begun == [1, 0, 1], "of the trial that was under way, the second epoch alone is trained"
    assert run(night, epochs=2).trials == again.trials, "asked for no more, it only reports"


def load(dotted: str) -> Any:
    """Return the attribute that ``dotted`` names."""
    import importlib

    module, owner, name = dotted.rsplit(".", 2)
    return getattr(getattr(importlib.import_module(module), owner), name)


def test_a_trial_that_is_pruned_leaves_torch_and_the_disk_as_they_were(
    night: Path, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Draft.report

    def report(self: Draft, figure: float) -> None:
        plain(self, figure)
        if not self.stands:
            raise Pruned

    monkeypatch.setattr(Draft, "report", report)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    result = run(night, trials=2)
    assert [(one.end, one.epochs) for one in result.trials] == [("complete", 2), ("pruned", 1)]
    assert result.trials[1].ndcg_at_10 is not None
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert list((night / ".stillhouse" / "tune" / result.name / "trials").iterdir()) == []


def test_runs_hold_settings_figures_and_how_each_trial_ended(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    stage(by_alpha)
    result = run(night, trials=6)
    assert [one["number"] for one in heard.trials] == list(range(6))
    assert {one["parent"] for one in heard.trials} == {"search"}
    assert heard.trials[0]["tags"] == {"end": "complete", "stands": "true"}
    assert heard.trials[0]["params"] == dict(result.stands.values)
    assert [step for step, _ in heard.trials[0]["series"]] == [0, 1, 2]
    ends = [one["tags"]["end"] for one in heard.trials]
    assert ends == [one.end for one in result.trials]
    assert "pruned" in ends
    assert heard.figures["best"] == result.best.ndcg_at_10
    assert heard.figures["pruned"] == ends.count("pruned")
    assert float(heard.tags["best.alpha"]) == result.best.values["alpha"]


def test_a_trial_that_diverges_is_passed_over_and_what_stands_must_not(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    def diverges(params: TrainStudentParams) -> list[float]:
        assert params.student.training is not None
        if params.student.training.learning_rate != 0.002:
            raise TrainingError("the training loss must stay finite")
        return [0.5]

    stage(diverges)
    result = run(night)
    assert [one.end for one in result.trials] == ["complete", "diverged", "diverged"]
    assert (result.best, result.patch, result.plot) == (result.stands, None, None)

    def always(_: TrainStudentParams) -> list[float]:
        raise TrainingError("the training loss must stay finite")

    stage(always)
    with pytest.raises(TrainingError, match="finite"):
        run(night, seed=5)


def test_weights_of_the_methods_that_are_listed_are_searched_and_patched(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    listed = [{"kind": "soft"}, {"kind": "regression", "draws": False}]
    plain["train_student"]["distillation"] = {"alpha": 0.3, "temperature": 1.0, "methods": listed}
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def by_weight(params: TrainStudentParams) -> list[float]:
        assert params.student.distillation is not None
        return [0.2 if params.student.distillation.methods[1].weight == 1.0 else 0.3]

    stage(by_weight)
    result = run(night)
    assert "weight.regression" in result.settings
    subprocess.run(["git", "apply", str(result.patch)], cwd=night, check=True)
    patched = load_document(night / "params.yaml")[0].students["small"].distillation
    assert patched is not None
    assert [method.weight for method in patched.methods] == [1.0, result.best.values["weight.regression"]]


def test_settings_that_a_trial_has_been_run_with_are_not_trained_again(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    plain["tune"] = {"alpha": None, "learning_rate": None, "method_weight": None, "startup_trials": 2}
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    trained = []

    def by_temperature(params: TrainStudentParams) -> list[float]:
        assert params.student.distillation is not None
        assert isinstance(params.student.distillation.temperature, ConstantTemperature)
        trained.append(params.student.distillation.temperature.value)
        return [0.1, 0.1 + 0.01 * trained[-1]]

    stage(by_temperature)
    trials = run(night, trials=8).trials
    assert len(trials) == 8
    assert len(trained) == len(set(trained)) < 8
    assert {one.ndcg_at_10 for one in trials} == {0.1 + 0.01 * heat for heat in trained}
    assert {one.epochs for one in trials} == {2}


def test_a_patch_of_an_earlier_search_goes_where_what_stands_is_the_best(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    (night / "params.tune.small.patch").write_text("of another night")
    stage(lambda params: [0.5])
    assert run(night).patch is None
    assert not (night / "params.tune.small.patch").exists()


def test_settings_that_cannot_be_patched_are_told(night: Path, heard: Any, stage: Callable[[Said], None]) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    shared = {"alpha": 0.3, "temperature": 1.0}
    plain["students"] |= {"small": {**plain["students"]["small"], "distillation": shared}}
    plain["train_student"]["distillation"] = shared
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    assert "*id" in (night / "params.yaml").read_text()
    stage(by_alpha)
    result = run(night)
    assert result.patch is None
    assert "set by hand: distillation.alpha" in (result.by_hand or "")


def test_more_epochs_than_asked_for_are_not_trained(night: Path, heard: Any, stage: Callable[[Said], None]) -> None:
    seen = []

    def note(params: TrainStudentParams) -> list[float]:
        assert params.student.training is not None
        seen.append((params.student.training.epochs, params.student.training.warm_epochs))
        return [0.5]

    stage(note)
    run(night, trials=1, epochs=1)
    run(night, trials=1, epochs=9)
    assert seen == [(1, 1), (2, 1)]


def test_no_trial_is_begun_after_the_time_but_the_first(night: Path, heard: Any, stage: Callable[[Said], None]) -> None:
    stage(by_alpha)
    assert len(run(night, trials=5, timeout=0.0).trials) == 1
    assert len(run(night, trials=5, timeout=0.0).trials) == 1
    assert len(run(night, trials=5, timeout=600.0).trials) == 5


def test_whatever_changes_the_figures_makes_another_search(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    stage(by_alpha)
    names = [run(night, trials=1).name, run(night, trials=2).name, run(night, trials=1, epochs=1).name]
    names += [run(night, trials=1, seed=5).name]
    params = (night / "params.yaml").read_text()
    (night / "params.yaml").write_text(params.replace("width: 8", "width: 4"))
    names += [run(night, trials=1).name]
    (night / "params.yaml").write_text(params.replace("min_users: 50", "min_users: 60"))
    names += [run(night, trials=1).name]
    (night / "params.yaml").write_text(params)
    (night / "data" / "soft_targets" / "index.safetensors").unlink()
    names += [run(night, trials=1).name]
    same = [names.index(name) for name in names]
    assert same == [0, 0, 2, 3, 4, 0, 6]


def test_a_night_under_way_is_said_and_no_held_place_is_named(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    stage(by_alpha)
    header = night / "data" / "soft_targets" / "store.json"
    header.write_text(header.read_text().replace(json.loads(header.read_text())["vocabulary"], "0" * 64))
    with pytest.raises(NightError, match=r"of the vocabulary 000000000000 beside .*: a night is under way"):
        run(night)


def test_a_second_search_of_a_student_is_refused(night: Path, heard: Any, stage: Callable[[Said], None]) -> None:
    stage(by_alpha)
    (night / ".stillhouse" / "tune").mkdir(parents=True)
    with (
        filelock.FileLock(night / ".stillhouse" / "tune" / "small.lock"),
        pytest.raises(TrainingError, match="one search of a student runs at a time"),
    ):
        run(night)
    assert len(run(night).trials) == 3


def test_a_workspace_without_a_night_and_an_unknown_student_are_refused(night: Path) -> None:
    with pytest.raises(ParamsError, match="student must be one of small"):
        search(Request(night, "smal"))
    (night / "data" / "soft_targets").rename(night / "data" / "gone")
    with pytest.raises(NightError, match="`stillhouse run` first"):
        run(night)


def test_a_warm_search_without_a_student_to_start_from_is_refused(night: Path) -> None:
    with pytest.raises(NightError, match=r"there is nothing from last night \(--warm\)"):
        run(night, warm=True)


def test_a_section_of_its_own_stands_in_place_of_the_common_one_and_an_empty_one_in_place_of_nothing(
    night: Path, heard: Any, stage: Callable[[Said], None]
) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    own = {**plain["train_student"]["training"], "learning_rate": 0.0123}
    plain["students"]["small"] = {**plain["students"]["small"], "training": own}
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    stage(lambda params: [0.5])
    assert run(night, trials=1).stands.values["learning_rate"] == 0.0123
    plain["students"]["small"]["training"] = {}
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    with pytest.raises(ParamsError, match=r"students\.small\.training stands in place of train_student\.training"):
        run(night, trials=1)


@pytest.mark.parametrize(
    ("distillation", "training", "said"),
    [
        ({"temperature": 3.0}, {}, "temperature must be one of"),
        ({"methods": [{"kind": "features"}]}, {}, "the method features must find"),
        ({}, {"windows": "all"}, "windows must be last"),
    ],
)
def test_a_student_alone_that_could_not_be_taught_is_searched_as_one_that_learns_alone(
    night: Path,
    stage: Callable[[Said], None],
    heard: Any,
    capsys: pytest.CaptureFixture[str],
    distillation: dict[str, Any],
    training: dict[str, Any],
    said: str,
) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    plain["train_student"]["distillation"] |= {"alpha": 1.0, "start": "fresh", **distillation}
    plain["train_student"]["training"] |= training
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    stage(lambda params: [0.1, 0.2])
    result = run(night, trials=3)
    assert result.settings == ["learning_rate"]
    shown = " ".join("".join(capsys.readouterr()).split())
    assert f"searched as a student that learns alone: {said}" in shown


def test_a_student_alone_that_could_be_taught_is_searched_as_one_that_may_be(
    night: Path, stage: Callable[[Said], None], heard: Any
) -> None:
    plain = yaml.safe_load((night / "params.yaml").read_text())
    plain["train_student"]["distillation"] |= {"alpha": 1.0}
    (night / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    stage(lambda params: [0.1, 0.2])
    assert run(night, trials=2).settings == ["alpha", "temperature", "learning_rate"]
