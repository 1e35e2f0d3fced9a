"""A workspace in which a night has prepared what a search takes, on few rows; tracking is listened to, not kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from stillhouse.data.files import write_json, write_none
from stillhouse.params.base import build, stage_values
from stillhouse.params.document import STAGE_PARAMS
from stillhouse.reporting import SilentReporter
from stillhouse.runner.closure import package_root
from stillhouse.runner.stage import load_stage

#: What makes trials cheap.
CHANGES = {
    "compute": {"device": "cpu", "precision": "32-true", "threads": 1},
    "export_soft_targets": {"k": 4, "tail_samples": 2, "temperatures": [1.0, 2.0], "shard_positions": 64},
    "tune": {"startup_trials": 2, "warmup_epochs": 1},
}
#: At this rate a student has hardly begun after two epochs: nearly any other is better.
TRAINING = {"epochs": 2, "warm_epochs": 1, "batch_size": 16, "learning_rate": 0.002, "warmup_steps": 2}
STUDENT = {"model": {"kind": "gru", "width": 8, "blocks": 1, "length": 6, "dropout": 0.1}}


@dataclass
class Heard:
    """What was said to tracking."""

    tags: dict[str, str] = field(default_factory=dict)
    """Of the search's run."""
    figures: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@pytest.fixture
def night(make_sequences: Callable[..., tuple[Path, Path]], tmp_path: Path) -> Path:
    """A workspace with sequences and a store of soft targets, on which no search has run."""
    make_sequences([[(u + step) % 12 + 1 for step in range(7)] for u in range(30)], name="data")
    shutil.copy(package_root().parent / "dvc.yaml", tmp_path)
    plain = yaml.safe_load((package_root().parent / "params.yaml").read_text())
    for section, values in CHANGES.items():
        plain[section] = {**plain[section], **values}
    plain["students"] = {"small": STUDENT}
    plain["train_student"]["training"] = plain["train_teacher"]["training"] = TRAINING
    plain["train_student"]["distillation"] |= {"alpha": 0.3, "temperature": 1.0}  # whatever the shipped ones are
    plain["train_teacher"]["model"] = {**STUDENT["model"], "width": 16}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    for place in ("previous/teacher", "previous/students/small"):
        write_none(tmp_path / place)
    write_json(tmp_path / "checked.json", {"passed": True})
    data = {"vocabulary": tmp_path / "data" / "vocabulary", "sequences": tmp_path / "data" / "sequences"}
    teacher = tmp_path / "models" / "teacher"
    teacher.parent.mkdir()
    _run("train_teacher", plain, **data, previous_teacher=tmp_path / "previous" / "teacher", teacher=teacher)
    store = tmp_path / "data" / "soft_targets"
    _run("export_soft_targets", plain, **data, teacher=teacher, checked=tmp_path / "checked.json", soft_targets=store)
    return tmp_path


def _run(stage: str, plain: Mapping[str, Any], **paths: Path) -> None:
    function, model = load_stage(stage)
    resume = paths["sequences"].parent.parent / f"resume_{stage}"
    resume.mkdir()
    params = build(model, stage_values(STAGE_PARAMS[stage], plain, {}), stage)
    function(**paths, resume=resume, params=params, reporter=SilentReporter())


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Listen to what a search says to tracking."""
    said = Heard()

    @contextmanager
    def search_run(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(run_id="search", tag=said.tags.update, log=lambda _, values: said.figures.update(values))

    @contextmanager
    def trial_run(_: Path, parent: str, number: int, params: Mapping[str, float]) -> Iterator[Any]:
        one: dict[str, Any] = {"parent": parent, "number": number, "params": dict(params), "tags": {}}
        said.trials.append(one)
        yield SimpleNamespace(
            tag=one["tags"].update, log=lambda series, values: one.update(series=series, figures=values)
        )

    for function in (search_run, trial_run):
        monkeypatch.setattr(f"stillhouse.tuning.search.{function.__name__}", function)
    monkeypatch.setattr("stillhouse.tuning.search.log_files", lambda _, __, path: said.files.append(path.name))
    return said
