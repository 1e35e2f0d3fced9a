"""Trains a small model over a made-up catalogue and says how much memory it took: one case in, one answer out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from contender import answer, case
from memory import peak_mib

from stillhouse.data.sequences import Sequences
from stillhouse.distill.hard import HardObjective
from stillhouse.models.build import build
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train.job import Job
from stillhouse.train.loop import train


class _Seconds(SilentReporter):
    """Keeps how long each epoch took."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep the seconds of training of epoch ``step``."""
        if "epoch_seconds" in values:
            self.epochs.append(values["epoch_seconds"])


def _events(items: int, users: int, length: int, seed: int) -> Sequences:
    """Return made-up histories over ``items`` items: the last two events of each user are held out."""
    each = length + 3
    numbers = np.arange(users, dtype=np.int64)
    drawn = np.random.default_rng(seed).integers(1, items + 1, (users, each)).astype(np.int32)
    return Sequences(
        items=drawn.ravel(),
        times=np.tile(np.arange(each), users),
        weights=np.ones(drawn.size, np.float32),
        offsets=np.arange(users + 1, dtype=np.int64) * each,
        train_length=np.full(users, each - 2, np.int32),
        valid=np.stack([numbers, np.full(users, each - 2), drawn[:, -2]], axis=1),
        test=np.stack([numbers, np.full(users, each - 1), drawn[:, -1]], axis=1),
        window=np.zeros((0, 3), np.int64),
        n_items=items,
        vocabulary="made up",
        repeat_items=False,
        order="position",
        window_start=None,
        window_end=None,
        window_reason="made up",
    )


def main() -> None:
    """Train the epochs asked for."""
    asked = case()
    sequences = _events(asked["items"], asked["users"], asked["length"], asked["seed"])
    sizes = {name: asked[name] for name in ("width", "blocks", "heads", "length")}
    model = build(TransformerSpec(kind="transformer", dropout=0.1, **sizes), asked["items"], seed=asked["seed"])
    training = TrainingSpec(
        epochs=asked["epochs"],
        batch_size=asked["batch_size"],
        valid_users=asked["valid_users"],
        negatives=asked["negatives"],
    )
    resume = Path("resume")
    shutil.rmtree(resume, ignore_errors=True)
    resume.mkdir()
    job = Job(
        objective=HardObjective(),
        sequences=sequences,
        training=training,
        compute=ComputeSpec(device="cpu", precision=asked["precision"], threads=asked["threads"]),
        seed=asked["seed"],
        warm=False,
        resume=resume,
        where="train_teacher.training",
    )
    before, seconds, began = peak_mib(), _Seconds(), time.perf_counter()
    train(model, job, seconds)
    answer(
        {
            "before_mib": before,
            "peak_mib": peak_mib(),
            "seconds": time.perf_counter() - began,
            "epoch_seconds": seconds.epochs,
            "steps_an_epoch": -(-asked["users"] // asked["batch_size"]),
            "table_mib": model.items.weight.numel() * 4 / 2**20,
        }
    )


if __name__ == "__main__":
    main()
