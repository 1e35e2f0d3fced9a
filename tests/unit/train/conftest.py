"""A small night that is quick to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.sequences import Sequences
from stillhouse.distill.hard import HardObjective
from stillhouse.params.model import ComputeSpec, TrainingSpec
from stillhouse.train.job import Job


@pytest.fixture
def ring_job(make_sequences: Callable[..., tuple[Path, Path]], tmp_path: Path) -> Callable[..., Job]:
    """Give a function that makes a job: walks round a ring of 12 items with some noise."""
    generator = np.random.default_rng(3)
    histories = [
        [(start + step + (generator.random() < 0.1)) % 12 + 1 for step in range(5 + start % 6)] for start in range(60)
    ]
    _, folder = make_sequences(histories, n_items=12, repeat_items=True)

    def make(resume: str = "resume", *, warm: bool = False, objective: object = None, **training: object) -> Job:
        (tmp_path / resume).mkdir(exist_ok=True)
        settings = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 2} | training
        return Job(
            objective=objective or HardObjective(),
            sequences=Sequences.open(folder),
            training=TrainingSpec(**settings),
            compute=ComputeSpec(device="cpu", threads=1),
            seed=1,
            warm=warm,
            resume=tmp_path / resume,
            where="train_teacher.training",
        )

    return make
