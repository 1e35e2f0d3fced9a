"""Evaluates a score matrix with RecBole's Collector and Evaluator: one case in, one answer out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import old_names  # noqa: F401  (before RecBole)
import recbole
import torch
from contender import answer, case
from matrix import Matrix
from recbole.evaluator import Collector, Evaluator


class _Settings(dict):
    """RecBole's own Config wants a data set; what the evaluator reads of it is this."""

    def __getitem__(self, name: str) -> Any:
        return self.get(name)


def main() -> None:
    """Time the evaluation in several sizes of batch, ``repeat`` times after one that does not count."""
    asked = case()
    torch.set_num_threads(asked["threads"])
    matrix = Matrix(asked["folder"])
    scores, targets = torch.from_numpy(matrix.scores), torch.from_numpy(matrix.targets)
    row, item = (torch.from_numpy(part) for part in matrix.seen)
    bounds = np.searchsorted(matrix.seen[0], np.arange(len(targets) + 1)).tolist()
    metrics = {"hit@10": "hr", "ndcg@10": "ndcg", "recall@10": "recall", "mrr@10": "mrr"}
    settings = _Settings(
        metrics=["Hit", "NDCG", "Recall", "MRR"],
        topk=[10],
        eval_args={"mode": "full"},
        device=torch.device("cpu"),
        metric_decimal_place=12,
    )

    def evaluate(batch: int) -> dict[str, float]:
        collector, evaluator = Collector(settings), Evaluator(settings)
        for first in range(0, len(targets), batch):
            last = min(first + batch, len(targets))
            part, cells = scores[first:last], slice(bounds[first], bounds[last])
            # As RecBole's Trainer masks a batch of scores before it is collected.
            part[:, 0] = -torch.inf
            part[(row[cells] - first, item[cells])] = -torch.inf
            collector.eval_batch_collect(part, None, torch.arange(last - first), targets[first:last])
        return {metrics[name]: value for name, value in evaluator.evaluate(collector.get_data_struct()).items()}

    seconds: dict[str, list[float]] = {}
    for batch in asked["batches"]:
        found = evaluate(batch)
        name = f"{batch} users a batch"
        seconds[name] = []
        for _ in range(asked["repeat"]):
            began = time.perf_counter()
            evaluate(batch)
            seconds[name].append(time.perf_counter() - began)
    answer({"seconds": seconds, "metrics": found, "versions": {"recbole": recbole.__version__}})


if __name__ == "__main__":
    main()
