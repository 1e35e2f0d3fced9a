"""The nights that `store.py` measures on: the built-in shop, and a made-up catalogue of MovieLens-1M's size."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.data.files import write_json, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.sources import fingerprint
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.hard import HardObjective
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.protocol import Recommender
from stillhouse.params.base import build as build_params
from stillhouse.params.base import stage_values
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.params.source import SourceSpec
from stillhouse.reporting import SilentReporter
from stillhouse.runner.stage import load_stage
from stillhouse.train.job import Job
from stillhouse.train.loop import train

AS_OF = "2026-03-02T00:00:00+00:00"
LENGTH = 50
TEACHER = TransformerSpec(kind="transformer", width=64, blocks=2, heads=2, length=LENGTH, dropout=0.2)
#: Items of the catalogue that only speed is measured on: MovieLens-1M's.
WIDE = 3416


class Night:
    """Vocabulary, sequences and a teacher on disk."""

    def __init__(self, folder: Path, params: Mapping[str, Any]) -> None:
        """Stand in ``folder``, with the settings of a whole params.yaml."""
        self.folder, self.params = folder, params
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "checked.json", {"passed": True})
        write_none(folder / "none")

    @property
    def words(self) -> Vocabulary:
        """The vocabulary."""
        return Vocabulary.load(self.folder / "vocabulary")

    @property
    def events(self) -> Sequences:
        """The sequences."""
        return Sequences.open(self.folder / "sequences")

    def stage(self, name: str, changes: Mapping[str, Any] | None = None, **paths: Path) -> Mapping[str, Any]:
        """Run the stage ``name``; a path that it takes and that is not given holds nothing."""
        function, model = load_stage(name)
        night = {"as_of": AS_OF, "source": self.params["source"], "fingerprint": "0" * 64}
        values = stage_values(model, dict(self.params), night, None)
        for needed in set(inspect.signature(function).parameters) - {"params", "reporter", *paths}:
            paths[needed] = self.folder / "none"
        found: Mapping[str, Any] = function(
            **paths, params=build_params(model, {**values, **(changes or {})}, name), reporter=SilentReporter()
        )
        return found

    def keep(self, model: Recommender, spec: TransformerSpec) -> None:
        """Make ``model`` the teacher."""
        save(self.folder / "teacher", model, Header(spec, self.words.n_items, self.words.digest, False, 1, False))

    def export(self, name: str, changes: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
        """Write the store ``name``; what stood there would be kept where it fits, so it goes first."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        resume = Path(tempfile.mkdtemp(dir=self.folder))
        figures = self.stage(
            "export_soft_targets",
            changes,
            teacher=self.folder / "teacher",
            checked=self.folder / "checked.json",
            vocabulary=self.folder / "vocabulary",
            sequences=self.folder / "sequences",
            soft_targets=self.folder / name,
            resume=resume,
        )
        return self.folder / name, figures

    def open(self, path: Path, **options: Any) -> SoftTargets:
        """Open a store of it."""
        return SoftTargets.open(path, vocabulary=self.words.digest, repeat_items=False, **options)


def shop(folder: Path, params: Mapping[str, Any], epochs: int) -> Night:
    """Prepare the built-in shop and train its teacher."""
    night = Night(folder, params)
    source = {"source": params["source"] | {"kind": "shop"}}
    mark = fingerprint(build_params(SourceSpec, source["source"], "source"), datetime.fromisoformat(AS_OF))
    night.stage("ingest", source | {"fingerprint": mark}, snapshot=folder / "snapshot")
    night.stage(
        "validate",
        snapshot=folder / "snapshot",
        accepted=folder / "accepted",
        quarantine=folder / "quarantine",
        profile=folder / "profile",
        verdict=folder / "verdict.json",
        data_docs=folder / "data_docs",
    )
    night.stage("admit", verdict=folder / "verdict.json", admitted=folder / "admitted.json")
    night.stage(
        "prepare",
        accepted=folder / "accepted",
        admitted=folder / "admitted.json",
        vocabulary=folder / "vocabulary",
        sequences=folder / "sequences",
    )
    model = build(TEACHER, night.words.n_items, seed=1)
    training = TrainingSpec(epochs=epochs, batch_size=64, learning_rate=2e-3, patience=epochs, schedule="cosine")
    job = Job(HardObjective(), night.events, training, ComputeSpec(), 1, False, folder / "teacher-resume", "teacher")
    job.resume.mkdir()
    train(model, job, SilentReporter())
    night.keep(model, TEACHER)
    return night


def made_up(folder: Path, params: Mapping[str, Any], users: int) -> Night:
    """Write ``users`` histories of 150 events over `WIDE` items, and a teacher that learnt nothing but has opinions."""
    night = Night(folder, params)
    rng = np.random.default_rng(0)
    liked = rng.pareto(1.0, WIDE) + 0.05
    rows = [rng.choice(WIDE, 152, replace=False, p=liked / liked.sum()) + 1 for _ in range(users)]
    items = np.concatenate(rows).astype(np.int32)
    names = [f"i{number}" for number in range(1, WIDE + 1)]
    words = Vocabulary(
        item_ids=["", *names],
        user_ids=[f"u{number}" for number in range(users)],
        popularity=np.bincount(items, minlength=WIDE + 1),
        titles=[None] * (WIDE + 1),
        texts=[None] * (WIDE + 1),
        categories=[None] * (WIDE + 1),
        as_of=AS_OF,
        has_items=False,
    )
    words.save(folder / "vocabulary")
    empty = np.empty((0, 3), np.int64)
    Sequences(
        items=items,
        times=np.arange(len(items), dtype=np.int64),
        weights=np.ones(len(items), np.float32),
        offsets=np.arange(users + 1, dtype=np.int64) * 152,
        train_length=np.full(users, 150, np.int32),
        valid=empty,
        test=empty,
        window=empty,
        n_items=WIDE,
        vocabulary=words.digest,
        repeat_items=False,
        order="position",
        window_start=None,
        window_end=None,
        window_reason="made up",
    ).save(folder / "sequences")
    model = build(TEACHER, WIDE, seed=1)
    with torch.no_grad():
        model.items.weight.mul_(12.0)
    night.keep(model.eval(), TEACHER)
    return night
