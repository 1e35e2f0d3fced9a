"""A teacher of any kind: trained by steps, fitted in closed form, or made of models that are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.data.files import is_none, read_json, write_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.hard import HardObjective
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import MEMBERS, Header, load, read_header, save
from stillhouse.models.cross_fitted import CrossFitted
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.fitted import Fitted
from stillhouse.models.folds import fold_of
from stillhouse.models.protocol import Recommender
from stillhouse.params.model import CrossFittedSpec, EnsembleSpec
from stillhouse.reporting import Reporter
from stillhouse.train.calibration import calibrate
from stillhouse.train.compute import derived_seed, device_of, repeatable
from stillhouse.train.named import Named
from stillhouse.train.night import Apprentice, learn
from stillhouse.train.validation import ValidationSet

__all__ = ["train_recommender"]

#: Scores that a calibration holds of each member: as many held-out positions as fit.
_CELLS = 1 << 23

Figures = dict[str, Any]


def train_recommender(
    apprentice: Apprentice, words: Vocabulary, events: Sequences, *, resume: Path, checkpoint: Path, reporter: Reporter
) -> Figures:
    """Make a model of any kind from what people did, and write its checkpoint.

    Args:
        apprentice: what it is to be; members of an ensemble start from the member of their name in
            last night's, what is fitted in closed form starts from nothing.
        words: tonight's vocabulary.
        events: tonight's sequences.
        resume: where a killed run left its state: finished members stay finished.
        checkpoint: the directory to make.
        reporter: hears of every epoch, of an ensemble under the member's name.

    Returns:
        ``start`` (warm, cold or fitted), ``valid_ndcg_at_10``; of a model trained by steps
        those of `stillhouse.train.night.learn`; of one made of models those of each under
        ``members``, with what an ensemble's calibration found.

    Raises:
        TrainingError: training diverged, there is nothing to learn from, or too much for the kind.
    """
    model, figures = _Maker(words, events, reporter).make(apprentice, resume)
    save(checkpoint, model, _header(apprentice, words, events, figures))
    return figures


class _Maker:
    """One night's data, and how each kind is made from it."""

    def __init__(self, words: Vocabulary, events: Sequences, reporter: Reporter) -> None:
        self.words, self.events, self.reporter = words, events, reporter

    def make(self, apprentice: Apprentice, resume: Path) -> tuple[Recommender, Figures]:
        """Return the finished model, on the CPU and in evaluation mode, and its figures."""
        match apprentice.spec:
            case EnsembleSpec():
                return self._ensemble(apprentice, apprentice.spec, resume)
            case CrossFittedSpec():
                return self._cross_fitted(apprentice, apprentice.spec, resume)
        model = build(apprentice.spec, self.words.n_items, seed=apprentice.seed)
        if isinstance(model, Fitted):
            return self._fitted(apprentice, model)
        unseen = apprentice.training.candidates == "unseen" and not self.events.repeat_items
        objective = HardObjective(histories=self.events if unseen else None)
        trained, _, figures = learn(
            apprentice, self.words, self.events, objective, resume=resume, reporter=self.reporter
        )
        return trained, figures

    def _fitted(self, apprentice: Apprentice, model: Fitted) -> tuple[Recommender, Figures]:
        with repeatable(apprentice.compute):
            model.eval().fit(self.events)
            self._calibrate(model, apprentice)
            return model, {"start": "fitted", "valid_ndcg_at_10": self._ndcg(model, apprentice)}

    def _ensemble(self, apprentice: Apprentice, spec: EnsembleSpec, resume: Path) -> tuple[Recommender, Figures]:
        parts = {}
        for place, (name, member) in enumerate(spec.members.items()):
            own = member.training is not None
            part = replace(
                apprentice,
                spec=member.model,
                training=member.training or apprentice.training,
                seed=derived_seed(apprentice.seed, place),
                previous=apprentice.previous / MEMBERS / name,
                where=f"train_teacher.model.members.{name}.training" if own else apprentice.where,
            )
            parts[name] = self._part(name, part, self.events, resume)
        model = Ensemble(spec, self.words.n_items, {name: model for name, (model, _) in parts.items()})
        figures = {name: figures for name, (_, figures) in parts.items()}
        with repeatable(apprentice.compute):
            self._calibrate(model.eval(), apprentice)
            ndcg = self._ndcg(model, apprentice)
        heats, weights = model.temperatures.tolist(), model.weights.tolist()
        for one, heat, weight in zip(figures.values(), heats, weights, strict=True):
            one["temperature"] = heat
            if spec.combine != "confidence":  # whose weights differ from position to position
                one["weight"] = weight
        return model, {"start": _start(figures), "valid_ndcg_at_10": ndcg, "members": figures}

    def _cross_fitted(self, apprentice: Apprentice, spec: CrossFittedSpec, resume: Path) -> tuple[Recommender, Figures]:
        folds = fold_of(torch.arange(self.events.n_users), spec.folds).numpy()
        before = apprentice.previous / MEMBERS
        if (last := _folds_of(apprentice.previous)) != spec.folds:
            if last is not None:
                self.reporter.note(
                    f"folds changed to {spec.folds}: last night's parts learnt from users whom tonight's judge"
                )
            before = before / "of-other-folds"
        taught = np.asarray(self.events.train_length) >= 2
        if lonely := [fold for fold in range(spec.folds) if not taught[folds != fold].any()]:
            raise TrainingError(
                f"each part of a cross-fitted teacher must have a user with two training events outside its fold, "
                f"found none for {len(lonely)} of {spec.folds} parts: give more interactions, or another teacher "
                "(params.yaml: train_teacher.model)"
            )
        parts = {}
        for fold, (name, part) in enumerate(spec.parts.items()):
            others = np.where(folds == fold, 0, np.asarray(self.events.train_length)).astype(np.int32)
            one = replace(
                apprentice,
                spec=part,
                seed=derived_seed(apprentice.seed, fold),
                previous=before / name,
            )
            parts[name] = self._part(name, one, replace(self.events, train_length=others), resume)
        model = CrossFitted(spec, self.words.n_items, {name: model for name, (model, _) in parts.items()}).eval()
        figures = {name: figures for name, (_, figures) in parts.items()}
        with repeatable(apprentice.compute):
            ndcg = self._ndcg(model, apprentice)
        return model, {"start": _start(figures), "valid_ndcg_at_10": ndcg, "members": figures}

    def _part(self, name: str, apprentice: Apprentice, events: Sequences, resume: Path) -> tuple[Recommender, Figures]:
        """Return one model of several; what a killed run finished of them is taken as it is, unless it is damaged."""
        home = resume / name
        done, noted = home / "finished", home / "figures.json"
        if done.exists():
            try:
                found = load(done)[0], read_json(noted)
            except (TrainingError, OSError, ValueError) as error:
                self.reporter.note(f"{name} is made again: what an earlier run finished is damaged ({error})")
                shutil.rmtree(done)
            else:
                self.reporter.note(f"{name} stands finished from an earlier run")
                return found
        home.mkdir(exist_ok=True)
        model, figures = _Maker(self.words, events, Named(self.reporter, name)).make(apprentice, home)
        write_json(noted, figures)
        save(done, model, _header(apprentice, self.words, events, figures))
        # Read back, so that a run that was killed after it ends with the same bits.
        return load(done)[0], read_json(noted)

    def _calibrate(self, model: Fitted | Ensemble, apprentice: Apprentice) -> None:
        most = max(1, _CELLS // (model.n_items + 1))
        valid = self._valid(model, apprentice, min(most, apprentice.training.valid_users))
        device = device_of(apprentice.compute)
        calibrate(model.to(device), valid, device)
        model.cpu()

    def _ndcg(self, model: Recommender, apprentice: Apprentice) -> float:
        device = device_of(apprentice.compute)
        found = self._valid(model, apprentice, apprentice.training.valid_users).ndcg_at_10(model.to(device))
        model.cpu()
        return found

    def _valid(self, model: Recommender, apprentice: Apprentice, users: int) -> ValidationSet:
        return ValidationSet(self.events, model.length, users=users, seed=apprentice.seed)


def _folds_of(previous: Path) -> int | None:
    """Return into how many folds last night's teacher parted the users; ``None``: it was not cross-fitted."""
    if not previous.exists() or is_none(previous):
        return None
    spec = read_header(previous).spec
    return spec.folds if isinstance(spec, CrossFittedSpec) else None


def _header(apprentice: Apprentice, words: Vocabulary, events: Sequences, figures: Mapping[str, Any]) -> Header:
    warm = figures["start"] == "warm"
    return Header(apprentice.spec, words.n_items, words.digest, events.repeat_items, apprentice.seed, warm)


def _start(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how a model of several started: warm only where all of them did that can."""
    starts = {one["start"] for one in figures.values()} - {"fitted"}
    return next(iter(starts)) if len(starts) == 1 else "cold" if starts else "fitted"
