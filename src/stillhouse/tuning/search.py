"""A search for one student's settings: each trial is the stage ``train_student`` on one night's data.

Nothing of the night is written to. What a search keeps lies below
``.stillhouse/tune``, in a folder that is named after everything that a trial's
figure depends on: another night, another loss, another range is another search.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from stillhouse.data.files import sha256_file, sha256_tree, write_bytes, write_json
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.store_format import read_header
from stillhouse.errors import NightError, ParamsError, TrainingError
from stillhouse.models.warm import why_cold
from stillhouse.params.agreement import require_agreement
from stillhouse.params.base import build, stage_values
from stillhouse.params.distillation import ConstantAlpha
from stillhouse.params.document import Document, load_document
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.runner.closure import import_closure, package_root
from stillhouse.runner.console import ConsoleReporter
from stillhouse.runner.stage import STATE, load_stage
from stillhouse.tracking.runs import StageRun, log_files, search_run, trial_run
from stillhouse.tuning.importance import draw, importances
from stillhouse.tuning.inputs import held_still, stage_inputs
from stillhouse.tuning.patch import patched, unified
from stillhouse.tuning.space import Dimension, search_space, with_values
from stillhouse.tuning.study import Draft, End, Pruned, Study, Trial, open_study

__all__ = ["Request", "Result", "search"]

_STAGE = "train_student"
_FIGURE = "valid_ndcg_at_10"
#: The same of a first training, in which items that are to share parts have rows of their own.
_ROWS_FIGURE = f"own_rows/{_FIGURE}"
_PARAMS = "params.yaml"
_PLOT = "importance.png"


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    workspace: Path
    student: str
    trials: int | None = None
    """Finished trials that the search ends with, those of earlier calls included; ``None``: as ``tune.trials`` says."""
    timeout: float | None = None
    """Seconds after which no further trial is begun."""
    epochs: int | None = None
    """Most epochs of a trial; ``None``: as the student's training says."""
    seed: int | None = None
    """Of the draws; ``None``: as ``seed`` says. Trials are all trained under the seed of params.yaml."""
    warm: bool = False
    """Whether trials start from last night's student, as tonight's stage does."""


@dataclass(frozen=True)
class Result:
    """What a search has found so far."""

    name: str
    trials: Sequence[Trial]
    settings: Sequence[str]
    """What was searched."""
    stands: Trial
    """The trial of the settings that stand."""
    best: Trial
    """The best of those that are complete; what stands where none is better."""
    importances: Mapping[str, float]
    """Setting → share, the largest first; empty where there are too few trials."""
    plot: Path | None
    patch: Path | None
    """``None``: what stands is the best, or there is ``by_hand``."""
    by_hand: str | None
    """Why params.yaml cannot be patched, and what to set in it."""


class _Plan:
    """A student's settings today, and what may be changed of them."""

    def __init__(self, request: Request) -> None:
        path = request.workspace / _PARAMS
        self._name = request.student
        self.document: Document
        self.document, self._plain = load_document(path)
        self.text = path.read_bytes().decode("utf-8")
        self._values = stage_values(TrainStudentParams, self._plain, {}, request.student)
        self.stands = self.params({})
        """The stage's settings today, with the sections in force as the student's own."""
        self.epochs = request.epochs
        self.seed = self.document.seed if request.seed is None else request.seed

    @property
    def settings(self) -> dict[str, Any]:
        """What is in force for the student, as params.yaml has it: its own sections before the common ones."""
        own = self._values["student"]
        sections = ("training", "distillation")
        return {name: self._values[name] if own.get(name) is None else own[name] for name in sections}

    def deaf(self, temperatures: Sequence[float]) -> str | None:
        """Say why a student that learns alone could not be taught as it stands; ``None``: it could, or is taught.

        Args:
            temperatures: those that the soft-target store was written for.
        """
        spec = self.stands.student.distillation
        if spec is None or not spec.alone or spec.label_smoothing:
            return None
        taught = spec.model_copy(update={"alpha": ConstantAlpha(kind="constant", value=0.0)})
        student = self.stands.student.model_copy(update={"distillation": taught})
        teacher = build(TrainTeacherParams, stage_values(TrainTeacherParams, self._plain, {}), _PARAMS).model
        export = build(ExportSoftTargetsParams, stage_values(ExportSoftTargetsParams, self._plain, {}), _PARAMS)
        kept = export.model_copy(update={"temperatures": tuple(temperatures)})
        try:
            require_agreement(teacher, kept, {self._name: self.stands.model_copy(update={"student": student})})
        except ParamsError as error:
            return str(error)
        return None

    def space(self, temperatures: Sequence[float], *, hears: bool) -> list[Dimension]:
        """Return what is searched, what a teacher says among it where the student ``hears``."""
        complete, distillation = self.stands.student.model_dump(), dict(self.settings["distillation"])
        if "methods" in distillation:
            distillation["methods"] = complete["distillation"]["methods"]
        return search_space(self.document.tune, complete["training"], distillation, temperatures, hears=hears)

    def params(self, changes: Mapping[Any, float]) -> TrainStudentParams:
        """Return the stage's settings with ``changes`` (place → value) in them."""
        student = {**self._values["student"], **with_values(self.settings, changes)}
        return build(TrainStudentParams, {**self._values, "student": student}, f"{_PARAMS}: {_STAGE}")

    def capped(self, params: TrainStudentParams) -> TrainStudentParams:
        """Return ``params`` with at most so many epochs as a trial may have."""
        training = params.student.training
        if self.epochs is None or training is None:
            return params
        fewer = {name: min(self.epochs, getattr(training, name)) for name in ("epochs", "warm_epochs")}
        student = params.student.model_copy(update={"training": training.model_copy(update=fewer)})
        return params.model_copy(update={"student": student})


def search(request: Request) -> Result:
    """Search until there are as many finished trials as asked for, and write down what was found.

    A search that was killed goes on: finished trials are kept, the one that was under way is taken up at its last
    saved step. Asked for no more trials than there are, it only reports.

    Returns:
        The trials, the best of them, the plot and the patch. ``params.yaml`` stays as it is.

    Raises:
        ParamsError: there is no such student, or nothing to vary.
        NightError: no night has made what a trial takes, or there is no student to start from as ``warm`` says.
        TrainingError: a search of this student is at work already, or what stands cannot be trained.
        StoreError: the store is of other data.
    """
    plan = _Plan(request)
    inputs = stage_inputs(request.workspace, _STAGE, request.student)
    reason = why_cold(inputs["previous_student"], plan.stands.student.model) if request.warm else None
    if reason is not None:
        raise NightError(
            f"a warm search must have a student of last night to start from, found that {request.student} would start "
            f"cold: {reason} (--warm): search without it"
        )
    home = request.workspace / STATE / "tune"
    home.mkdir(parents=True, exist_ok=True)
    with (
        _alone(home, request.student),
        held_still(inputs, home / f"{request.student}.inputs", warm=request.warm) as still,
    ):
        return _Search(request, plan, still, home).to_the_end()


@contextmanager
def _alone(home: Path, student: str) -> Iterator[None]:
    """Hold the searches of ``student`` for one process; the kernel lets go when it ends, however it ends."""
    lock = filelock.FileLock(home / f"{student}.lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrainingError(
            f"one search of a student runs at a time in a workspace, found another of {student} at work: "
            "wait for it to end"
        ) from None
    try:
        yield
    finally:
        lock.release()


class _Search:
    """One call's work on a search."""

    def __init__(self, request: Request, plan: _Plan, inputs: Mapping[str, Path], home: Path) -> None:
        self.request, self.plan, self.inputs = request, plan, inputs
        header = read_header(inputs["soft_targets"])
        if header.vocabulary != (found := Vocabulary.load(inputs["vocabulary"]).digest):
            raise NightError(
                f"a search takes what one night has prepared, found soft targets of the vocabulary "
                f"{header.vocabulary[:12]} beside {found[:12]}: a night is under way, let it close (stillhouse run)"
            )
        temperatures = header.temperatures
        deaf = plan.deaf(temperatures)
        self.space = plan.space(temperatures, hears=deaf is None)
        self.wanted = request.trials or plan.document.tune.trials
        self.reporter = ConsoleReporter(f"tune {request.student}")
        if deaf is not None:
            self.reporter.note(f"searched as a student that learns alone: {deaf}")
        self.stage, _ = load_stage(_STAGE)
        facts = self._facts()
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = home / f"{request.student}-{digest}"
        self.folder.mkdir(exist_ok=True)
        write_json(self.folder / "search.json", facts)

    def _facts(self) -> dict[str, Any]:
        """Return all that the trials' figures depend on."""
        code = {file: sha256_file(package_root() / file) for file in import_closure(f"stillhouse.stages.{_STAGE}")}
        return {
            "inputs": {argument: sha256_tree(path) for argument, path in sorted(self.inputs.items())},
            "params": json.loads(self.plan.capped(self.plan.stands).model_dump_json()),
            "tune": json.loads(self.plan.document.tune.model_dump_json(exclude={"trials"})),
            "seed": self.plan.seed,
            "code": hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest(),
        }

    def to_the_end(self) -> Result:
        """Perform what is missing, and write down what was found."""
        study = open_study(self.folder, self.space, self.plan.document.tune, self.plan.seed)
        tags = {"settings": ", ".join(dimension.name for dimension in self.space)}
        with search_run(self.request.workspace, self.folder.name, self.request.student, tags) as run:
            self._perform(study, run)
            result = self._result(study.trials)
            self._log(run, result)
        return result

    def _perform(self, study: Study, run: StageRun) -> None:
        began = time.monotonic()
        done = len(study.trials)
        self.reporter.note(
            f"{done} of {self.wanted} trials finished; " + ", ".join(map(_shown, self.space)) + f" ({self.folder.name})"
        )
        # The first trial is what stands: it is run whatever the clock says, or there is nothing to compare with.
        while done < self.wanted and (not done or not self._late(began)):
            trial = self._trial(study, study.draw(), run.run_id)
            done += 1
            self.reporter.note(f"{done}/{self.wanted}  {_told(trial)}")

    def _late(self, began: float) -> bool:
        return self.request.timeout is not None and time.monotonic() - began > self.request.timeout

    def _trial(self, study: Study, draft: Draft, parent: str) -> Trial:
        began = time.monotonic()
        places = {dimension.name: dimension.place for dimension in self.space}
        changes = {places[name]: value for name, value in draft.values.items()}
        params = self.plan.capped(self.plan.params({} if draft.stands else changes))
        reporter = _TrialReporter(ConsoleReporter(f"tune {self.request.student}, trial {draft.number}"), draft)
        again = next((one for one in study.trials if one.end == _COMPLETE and one.values == draft.values), None)
        with trial_run(self.request.workspace, parent, draft.number, draft.values) as run:
            if again is None:
                figure, end = self._train(params, draft, reporter)
            else:  # the same seed and settings end in the same bits
                figure, end, draft.epochs = again.ndcg_at_10, _COMPLETE, again.epochs
            run.log(reporter.series, {} if figure is None else {_FIGURE: figure})
            run.tag({"end": end} | ({"stands": "true"} if draft.stands else {}))
        return study.finish(draft, figure, round(time.monotonic() - began, 3), end)

    def _train(self, params: TrainStudentParams, draft: Draft, reporter: _TrialReporter) -> tuple[float | None, End]:
        """Run the stage, and return its figure and how it ended; what it made is of no use to anyone."""
        digest = hashlib.sha256(params.model_dump_json().encode()).hexdigest()[:16]
        folder = self.folder / "trials" / digest  # by its settings: a trial that was killed finds its state again
        resume, made = folder / "resume", folder / "made"
        resume.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        made_by_it = set(inspect.signature(self.stage).parameters) - {*self.inputs, "resume", "params", "reporter"}
        outputs = {argument: made / argument for argument in made_by_it}
        try:
            figures = self.stage(**self.inputs, **outputs, resume=resume, params=params, reporter=reporter)
            figure, end = float(figures[_FIGURE]), _COMPLETE
        except Pruned:
            figure, end = None, _PRUNED
        except TrainingError:
            if draft.stands:  # nothing to compare with; and it may be the data, not the settings
                raise
            figure, end = None, _DIVERGED
        shutil.rmtree(folder)
        return figure, end

    def _result(self, trials: Sequence[Trial]) -> Result:
        stands = next(trial for trial in trials if trial.stands)
        complete = [trial for trial in trials if trial.end == _COMPLETE]
        best = max(complete, key=lambda trial: (trial.ndcg_at_10 or 0.0, trial.stands))
        shares = importances(trials, self.space)
        by_hand = None
        try:
            patch = self._patch(best, stands, len(trials))
        except ParamsError as error:  # a night's search is not lost for that
            patch, by_hand = None, str(error)
        return Result(
            name=self.folder.name,
            trials=trials,
            settings=[dimension.name for dimension in self.space],
            stands=stands,
            best=best,
            importances=shares,
            plot=self._draw(shares, len(trials)),
            patch=patch,
            by_hand=by_hand,
        )

    def _draw(self, shares: Mapping[str, float], count: int) -> Path | None:
        if not shares:
            return None
        path = self.folder / _PLOT
        draw(shares, f"{self.request.student}: what made {count} trials good (NDCG@10, validation)", path)
        return path

    def _patch(self, best: Trial, stands: Trial, count: int) -> Path | None:
        """Write the patch of ``best``; where what stands is the best, an earlier search's goes."""
        path = self.request.workspace / f"params.tune.{self.request.student}.patch"
        path.unlink(missing_ok=True)
        if best.stands:
            return None
        changes = {
            dimension.place: best.values[dimension.name]
            for dimension in self.space
            if best.values[dimension.name] != dimension.stands
        }
        after = patched(self.plan.text, self.request.student, self.plan.settings, changes)
        about = (
            f"stillhouse tune {self.request.student}: the best of {count} trials, NDCG@10 on the validation split "
            f"{best.ndcg_at_10:.4f}; what stands: {stands.ndcg_at_10:.4f} ({self.folder.name})"
        )
        write_bytes(path, unified(self.plan.text, after, _PARAMS, about).encode("utf-8"))
        return path

    def _log(self, run: StageRun, result: Result) -> None:
        ends = [trial.end for trial in result.trials]
        run.log(
            [],
            {
                "best": result.best.ndcg_at_10,
                "stands": result.stands.ndcg_at_10,
                "trials": len(ends),
                "pruned": ends.count(_PRUNED),
                "diverged": ends.count(_DIVERGED),
                "importance": result.importances,
            },
        )
        run.tag({f"best.{name}": f"{value:g}" for name, value in result.best.values.items()})
        for path in (result.plot, result.patch):
            if path is not None:
                log_files(self.request.workspace, run.run_id, path)


_COMPLETE: End = "complete"
_PRUNED: End = "pruned"
_DIVERGED: End = "diverged"


class _TrialReporter:
    """Hands a trial's figure of each epoch to the study, which may end it there."""

    def __init__(self, inner: ConsoleReporter, draft: Draft) -> None:
        self._inner, self._draft = inner, draft
        self.progress = inner.progress

    @property
    def series(self) -> list[tuple[int, dict[str, float]]]:
        """(step, values) in the order reported."""
        return self._inner.series

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep ``values`` for the trial's run.

        Raises:
            Pruned: the trial is not worth finishing.
        """
        self._inner.metrics(values, step)
        for figure in (_FIGURE, _ROWS_FIGURE):
            if figure in values:
                self._draft.report(values[figure])

    def note(self, text: str) -> None:
        """Say nothing: what the stage would say is the same for every trial."""


def _shown(dimension: Dimension) -> str:
    return f"{dimension.name} {dimension.stands:g}"


def _told(trial: Trial) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in trial.values.items())
    figure = "no figure" if trial.ndcg_at_10 is None else f"NDCG@10 {trial.ndcg_at_10:.4f}"
    return f"{settings}: {figure}, {trial.end} after {trial.epochs} epochs in {trial.seconds:.1f} s"
