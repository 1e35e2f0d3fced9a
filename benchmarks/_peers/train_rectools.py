"""Trains RecTools' SASRec with its softmax loss: one case in, one answer out (see `environment.run`)."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import rectools
import torch
from contender import Course, Events, answer, case
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

_LISTED = 100
#: RecTools copies its trainer and what hangs on it: what the copy has to reach lies here.
_COURSE: list[Course] = []


class _Watcher(Callback):
    """Notes each epoch; ends the training when its budget is spent."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Leave what `fit` prepares off the clock, as our own preparing is."""
        _COURSE[0].begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note the epoch."""
        _COURSE[0].mark()
        pl_module.train()
        trainer.should_stop = _COURSE[0].over


def _trainer(epochs: int) -> Trainer:
    # As RecTools makes its own, with our watcher on it.
    return Trainer(
        max_epochs=epochs,
        min_epochs=1,
        accelerator="cpu",
        devices=1,
        deterministic=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[_Watcher()],
    )


def _dataset(events: Events, *, held_out: bool) -> Dataset:
    users, items, place = events.rows(held_out=held_out)
    rows = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(rows | {Columns.Datetime: pd.to_datetime(place, unit="s")}))


def main() -> None:
    """Train until the epochs or the seconds are spent."""
    began = time.perf_counter()
    warnings.simplefilter("ignore")
    asked = case()
    torch.set_num_threads(asked["threads"])
    pytorch_lightning.seed_everything(asked["seed"])
    events = Events(Path(asked["sequences"]), asked["length"])
    train, full = _dataset(events, held_out=False), _dataset(events, held_out=True)
    model = SASRecModel(
        n_factors=asked["width"],
        n_blocks=asked["blocks"],
        n_heads=asked["heads"],
        session_max_len=asked["length"],
        dropout_rate=asked["dropout"],
        batch_size=asked["batch_size"],
        lr=asked["learning_rate"],
        loss="softmax",
        dataloader_num_workers=0,
        epochs=asked["epochs"],
        get_trainer_func=_trainer,
        get_trainer_func_kwargs={"epochs": asked["epochs"]},
    )

    def measure() -> dict[str, float]:
        model.is_fitted = True
        lists = model.recommend(events.test[:, 0], full, _LISTED, filter_viewed=True)
        model.is_fitted = False
        row = np.full(len(events.offsets), -1)
        row[events.test[:, 0]] = np.arange(len(events.test))
        scores = np.full((len(events.test), events.n_items + 1), -np.inf, np.float32)
        scores[row[lists[Columns.User]], lists[Columns.Item]] = lists[Columns.Score]

        def score(rows: slice) -> NDArray[np.floating]:
            return scores[rows]

        return events.quality(score)

    setup = time.perf_counter() - began
    _COURSE.append(Course(asked, measure if asked["quality"] else None))
    model.fit(train)
    answer(
        {
            "setup_seconds": setup,
            "epochs": _COURSE[0].epochs,
            "positions_a_sequence": events.positions / events.sequences,
            "positions": events.positions,
            "parameters": sum(weight.numel() for weight in model.torch_model.parameters()),
            "versions": {"torch": torch.__version__, "rectools": rectools.__version__},
        }
    )


if __name__ == "__main__":
    main()
