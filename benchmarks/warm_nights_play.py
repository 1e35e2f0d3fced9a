"""A line of nights, cold or warm, played stage by stage in one process: the dear part of `warm_nights.py`."""

from __future__ import annotations

import copy
import inspect
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.data.files import write_json, write_none
from stillhouse.data.sources import fingerprint
from stillhouse.data.tonight import read_night
from stillhouse.evaluate.popularity import popularity_scores
from stillhouse.evaluate.ranks import write_evaluation
from stillhouse.evaluate.scoring import score_split
from stillhouse.models.checkpoint import load
from stillhouse.params.base import StageParams, build, stage_values
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.runner.stage import load_stage
from stillhouse.train.compute import fabric_of, repeatable


@dataclass(frozen=True)
class Line:
    """One way of playing the nights."""

    name: str
    cold_every: int | None
    """1: every night cold; ``None``: only the first."""

    def cold(self, night: int) -> bool:
        """Say whether night ``night`` (from 0) starts from nothing."""
        return night == 0 or (self.cold_every is not None and night % self.cold_every == 0)


COLD, WARM = Line("cold", 1), Line("warm", None)


def origin(line: Line, night: int) -> Line:
    """Return the line that plays a night of ``line``: until its second cold night all warm lines are one."""
    if line.cold(night):
        return COLD
    return WARM if line.cold_every is not None and night < line.cold_every else line


@dataclass(frozen=True)
class Play:
    """Everything that decides what comes out."""

    params: Mapping[str, Any]
    """The whole of params.yaml, as it is used."""
    warm: Mapping[str, Any]
    """Settings that differ on warm nights, by their path."""
    source: Mapping[str, Any]
    nights: Sequence[datetime]
    """The nights' ``as_of``."""
    work: Path
    compare_every: int
    """The cold line is played on every N-th night, and where another line starts cold."""

    def plays(self, lines: Sequence[Line], line: Line, night: int) -> bool:
        """Say whether ``line`` has a night of its own or of another line to show."""
        return line is not COLD or night % self.compare_every == 0 or any(each.cold(night) for each in lines[1:])

    def folder(self, line: str, night: int) -> Path:
        """Return where a line's night stands."""
        return self.work / line.replace("/", "-") / f"night-{night:02d}"


class Performer:
    """Performs the stages of one night in one folder, and remembers those that are done."""

    def __init__(self, play: Play, folder: Path, night: int, *, warm: bool = False) -> None:
        """Perform night ``night`` in ``folder``, with the settings of warm nights if it is one."""
        self.play, self.folder, self.night = play, folder, night
        self.document = changed(play.params, play.warm) if warm else play.params
        (folder / "stages").mkdir(parents=True, exist_ok=True)

    def run(self, stage: str, outputs: Mapping[str, Path], **inputs: Path) -> None:
        """Run one stage function, unless it is done; keep its figures, and its wall-clock and CPU seconds."""
        noted = self.folder / "stages" / f"{stage}.json"
        if noted.is_file():
            return
        for path in outputs.values():  # of a run that was killed
            shutil.rmtree(path, ignore_errors=True)
        base, _, instance = stage.partition("@")
        function, model = load_stage(base)
        paths = {**inputs, **outputs}
        with tempfile.TemporaryDirectory(dir=self.folder) as resume:
            if "resume" in inspect.signature(function).parameters:
                paths["resume"] = Path(resume)
            params = build(model, self._values(model, instance or None), stage)
            wall, cpu = time.perf_counter(), time.process_time()
            figures = function(**paths, params=params, reporter=SilentReporter())
            seconds = [time.perf_counter() - wall, time.process_time() - cpu]
        write_json(noted, {"seconds": seconds, "figures": dict(figures)})

    def _values(self, model: type[StageParams], instance: str | None) -> dict[str, Any]:
        source, as_of = self.play.source, self.play.nights[self.night]
        night: dict[str, Any] = {"as_of": as_of.isoformat(), "source": source}
        if "fingerprint" in model.night:
            night["fingerprint"] = fingerprint(SourceSpec.model_validate(source), as_of)
        return stage_values(model, self.document, {key: night[key] for key in model.night}, instance)


def play_data(play: Play, night: int) -> None:
    """Ingest, validate, admit and prepare a night, once for all lines."""
    here = play.folder("data", night)
    if (here / "done").is_file():
        return
    before = here / "nothing" if night == 0 else play.folder("data", night - 1)
    for name in ("vocabulary", "profile") if night == 0 else ():
        write_none(before / name)
    performer = Performer(play, here, night)
    performer.run("ingest", {"snapshot": here / "snapshot"})
    performer.run(
        "validate",
        {name: here / name for name in ("accepted", "quarantine", "profile", "verdict", "data_docs")},
        snapshot=here / "snapshot",
        previous_profile=before / "profile",
    )
    performer.run("admit", {"admitted": here / "admitted"}, verdict=here / "verdict")
    performer.run(
        "prepare",
        {name: here / name for name in ("vocabulary", "sequences")},
        accepted=here / "accepted",
        admitted=here / "admitted",
        previous_vocabulary=before / "vocabulary",
    )
    for name in ("snapshot", "accepted", "quarantine", "data_docs"):
        shutil.rmtree(here / name, ignore_errors=True)
    (here / "done").touch()


def play_models(play: Play, line: Line, night: int) -> None:
    """Train, check, export, distil, package and evaluate a line's night."""
    here = play.folder(line.name, night)
    if (here / "done").is_file():
        return
    data, warm = play.folder("data", night), not line.cold(night)
    performer = Performer(play, here, night, warm=warm)
    common = {name: data / name for name in ("vocabulary", "sequences")}
    previous = played(play, line, night - 1) if warm else here / "nothing"
    names = ("teacher", "soft_targets", *play.params["students"])
    for name in () if warm else names:
        write_none(previous / name)
    performer.run("train_teacher", {"teacher": here / "teacher"}, **common, previous_teacher=previous / "teacher")
    performer.run(
        "check_teacher",
        {"checked": here / "checked", "timings": here / "teacher-timings"},
        **common,
        teacher=here / "teacher",
        previous_teacher=previous / "teacher",
    )
    performer.run(
        "export_soft_targets",
        {"soft_targets": here / "soft_targets"},
        **common,
        teacher=here / "teacher",
        checked=here / "checked",
        previous_soft_targets=previous / "soft_targets",
    )
    for name in play.params["students"]:
        packed = here / f"{name}-package"
        performer.run(
            f"train_student@{name}",
            {"student": here / name},
            **common,
            soft_targets=here / "soft_targets",
            previous_student=previous / name,
        )
        performer.run(f"package@{name}", {"package": packed}, **common, student=here / name)
        timed = {"evaluation": here / "evaluations" / name, "timings": here / f"{name}-timings"}
        performer.run(f"evaluate@{name}", timed, **common, package=packed)
    rank_teacher(play, data, here / "teacher", here / "evaluations" / "teacher")
    (here / "done").touch()


def rank_teacher(play: Play, data: Path, teacher: Path, evaluation: Path) -> None:
    """Keep the teacher's ranks on the time window, as `evaluate` keeps a student's."""
    params = build(TrainTeacherParams, stage_values(TrainTeacherParams, play.params, {}), "bench")
    words, events = read_night(data / "vocabulary", data / "sequences", params.repeat_items)
    model, _ = load(teacher, vocabulary=words.digest)
    fabric = fabric_of(params.compute)
    model = model.to(fabric.device)

    @torch.no_grad()
    def score(histories: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(histories).to(fabric.device)).float().cpu().numpy()

    with repeatable(params.compute):
        scored = score_split(
            events,
            "window",
            score,
            length=model.length,
            k=10,
            batch_size=512,
            repeat_items=params.repeat_items,
            fallback=popularity_scores(words.popularity),
        )
    write_evaluation(evaluation, {"time_window": scored}, words.n_items, {})


def played(play: Play, line: Line, night: int) -> Path:
    """Return where a line's night stands: a cold night is the cold line's."""
    return play.folder(origin(line, night).name, night)


def changed(document: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` with the values of ``settings``, given by their paths, in it."""
    made = copy.deepcopy(dict(document))
    for path, value in settings.items():
        *parents, last = path.split(".")
        place = made
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                raise SystemExit(f"a setting must stand in a section of params.yaml, found no {parent} for {path}")
            place = place[parent]
        place[last] = value
    return made
