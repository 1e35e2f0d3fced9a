"""Trains our teacher: one case in, one answer out (see `environment.run`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from contender import Course, Events, answer, case
from numpy.typing import NDArray

from stillhouse.data.sequences import Sequences
from stillhouse.distill.hard import HardObjective
from stillhouse.models.build import build
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train.job import Job
from stillhouse.train.loop import train


class _SpentError(Exception):
    """The training has used its budget."""


class _Watcher(SilentReporter):
    """Notes each epoch; ends the training when its budget is spent."""

    def __init__(self, course: Course) -> None:
        self.course = course

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note the epoch ``step``: its seconds of training alone are ``values['epoch_seconds']``."""
        if "epoch_seconds" not in values:
            return
        self.course.mark(training_seconds=values["epoch_seconds"], valid_ndcg_at_10=values["valid_ndcg_at_10"])
        # Epochs that are all done end by themselves, with the best weights.
        if self.course.seconds >= self.course.asked["seconds"]:
            raise _SpentError


def main() -> None:
    """Train until the epochs or the seconds are spent."""
    began = time.perf_counter()
    asked = case()
    folder = Path(asked["sequences"])
    sequences, events = Sequences.open(folder), Events(folder, asked["length"])
    sizes = {name: asked[name] for name in ("width", "blocks", "heads", "length", "dropout")}
    spec = TransformerSpec(kind="transformer", **sizes | asked.get("model", {}))
    model = build(spec, sequences.n_items, seed=asked["seed"])
    rates = {"epochs": asked["epochs"], "patience": asked["epochs"], "batch_size": asked["batch_size"]}
    rates |= {"learning_rate": asked["learning_rate"], "valid_users": 2000 if asked["quality"] else 100}
    compute = ComputeSpec(device="cpu", precision=asked["precision"], threads=asked["threads"])
    resume = Path("resume")
    shutil.rmtree(resume, ignore_errors=True)
    resume.mkdir()

    @torch.no_grad()
    def score(rows: slice) -> NDArray[np.floating]:
        users, lengths = events.test[rows, 0], events.test[rows, 1]
        histories = torch.from_numpy(sequences.padded(users, lengths, events.length))
        with torch.autocast("cpu", enabled=False):
            return model(histories).float().numpy()

    def measure() -> dict[str, float]:
        learning, _ = model.training, model.eval()
        found = events.quality(score)
        model.train(learning)
        return found

    torch.set_num_threads(asked["threads"])
    setup = time.perf_counter() - began
    course = Course(asked, measure if asked["quality"] else None)
    job = Job(
        objective=HardObjective(),
        sequences=sequences,
        training=TrainingSpec(**rates | asked.get("training", {})),
        compute=compute,
        seed=asked["seed"],
        warm=False,
        resume=resume,
        where="train_teacher.training",
    )
    kept = None
    try:
        outcome = train(model, job, _Watcher(course))
        kept = measure() | {"epoch": outcome.best_epoch} if asked["quality"] else None
    except _SpentError:
        pass
    answer(
        {
            "setup_seconds": setup,
            "epochs": course.epochs,
            "positions_a_sequence": events.positions / events.sequences,
            "positions": events.positions,
            "kept": kept,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "versions": {"torch": torch.__version__},
        }
    )


if __name__ == "__main__":
    main()
