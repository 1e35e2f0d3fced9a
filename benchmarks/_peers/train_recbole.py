"""Trains RecBole's SASRec with cross-entropy, one position a row: one case in, one answer out."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import old_names  # noqa: F401  (before RecBole)
import recbole
import torch
from contender import Course, Events, answer, case
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

#: Looks at the quality within the budget, for an epoch takes longer than any patience.
_LOOKS = 10


class _Budget:
    """RecBole's own loader of training data, which ends when the budget is spent."""

    def __init__(self, loader: Any, course: Course) -> None:
        self._loader, self._course = loader, course
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        course, looks, first = self._course, 1, self.rows
        every = course.asked["seconds"] / (_LOOKS if course.measure else 1)
        for batch in self._loader:
            yield batch
            self.rows += len(batch)
            if course.seconds >= looks * every:
                course.mark(positions=self.rows - first)
                looks, first = looks + 1, self.rows
                if course.over:
                    return
        course.mark(positions=self.rows - first)


def _config(asked: dict[str, Any], folder: Path) -> Config:
    sys.argv = sys.argv[:1]  # RecBole reads settings from the command line
    settings = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": asked["length"],
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "n_layers": asked["blocks"],
        "n_heads": asked["heads"],
        "hidden_size": asked["width"],
        "inner_size": 2 * asked["width"],
        "hidden_dropout_prob": asked["dropout"],
        "attn_dropout_prob": asked["dropout"],
        "train_batch_size": asked["rows_a_step"],
        "learning_rate": asked["learning_rate"],
        "epochs": asked["epochs"],
        "use_gpu": False,
        "seed": asked["seed"],
        "reproducibility": False,
        "show_progress": False,
        "state": "ERROR",
    }
    return Config(model="SASRec", dataset="peer", config_dict=settings)


def _write(events: Events, folder: Path) -> None:
    """Write every event in RecBole's form; it holds out the last two of each user, as ours does."""
    folder.mkdir(exist_ok=True)
    counts = np.diff(events.offsets)
    users = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    with (folder / "peer.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        np.savetxt(file, np.stack([users, events.items, place], axis=1), fmt="%d", delimiter="\t")


def main() -> None:
    """Train until the seconds are spent."""
    began = time.perf_counter()
    asked = case()
    argv = list(sys.argv)
    torch.set_num_threads(asked["threads"])
    events = Events(Path(asked["sequences"]), asked["length"])
    _write(events, Path("peer"))
    config = _config(asked, Path())
    logging.disable(logging.INFO)
    init_seed(asked["seed"], False)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset).to("cpu")
    trainer = Trainer(config, model)
    numbers = dataset.field2token_id["item_id"]  # its own; 0 for an item that nobody took
    number = np.array([0, *(numbers.get(str(item), 0) for item in range(1, events.n_items + 1))])

    @torch.no_grad()
    def score(rows: slice) -> NDArray[np.floating]:
        stop = events.offsets[events.test[rows, 0]] + events.test[rows, 1]
        taken = np.minimum(events.test[rows, 1], events.length)
        histories = np.zeros((len(stop), events.length), np.int64)
        for row, (last, count) in enumerate(zip(stop, taken, strict=True)):
            histories[row, :count] = number[events.items[last - count : last]]
        asked_for = {model.ITEM_SEQ: torch.from_numpy(histories), model.ITEM_SEQ_LEN: torch.from_numpy(taken)}
        return np.where(number > 0, model.full_sort_predict(asked_for).numpy()[:, number], -np.inf)

    def measure() -> dict[str, float]:
        model.eval()
        found = events.quality(score)
        model.train()
        return found

    setup = time.perf_counter() - began
    course = Course(asked, measure if asked["quality"] else None)
    budget = _Budget(train_data, course)
    for epoch in range(asked["epochs"]):
        trainer._train_epoch(budget, epoch)
        if course.over:
            break
    sys.argv = argv
    answer(
        {
            "setup_seconds": setup,
            "epochs": course.epochs,
            "positions_a_sequence": events.positions / events.sequences,
            "positions": events.all_positions,
            "batches_an_epoch": math.ceil(events.all_positions / asked["rows_a_step"]),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "versions": {"torch": torch.__version__, "recbole": recbole.__version__},
        }
    )


if __name__ == "__main__":
    main()
