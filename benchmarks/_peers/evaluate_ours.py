"""Evaluates a score matrix with our evaluator: one case in, one answer out (see `environment.run`)."""

from __future__ import annotations

import time

import numpy as np
from contender import answer, case
from matrix import Matrix

from stillhouse.evaluate.metrics import ranking_metrics, reciprocal_ranks
from stillhouse.evaluate.ranking import rank_targets, top_k


def main() -> None:
    """Time ranks with metrics, then the lists as well, ``repeat`` times after one that does not count."""
    asked = case()
    matrix = Matrix(asked["folder"])
    users, n_items = np.arange(len(matrix.targets)), matrix.scores.shape[1] - 1
    seconds: dict[str, list[float]] = {"whole": [], "ranks": [], "metrics": [], "lists": []}
    for turn in range(asked["repeat"] + 1):
        began = time.perf_counter()
        ranks = rank_targets(matrix.scores, matrix.targets, matrix.seen, threads=asked["threads"])
        ranked = time.perf_counter()
        found = ranking_metrics(users, ranks, (10,), n_items)
        within = float(reciprocal_ranks(ranks, 10).mean())
        done = time.perf_counter()
        top_k(matrix.scores, 10, matrix.seen)
        listed = time.perf_counter()
        if turn:
            seconds["ranks"].append(ranked - began)
            seconds["metrics"].append(done - ranked)
            seconds["whole"].append(done - began)
            seconds["lists"].append(listed - done)
    metrics = {name: found[f"{name}_at_10"] for name in ("hr", "ndcg", "recall")}
    answer({"seconds": seconds, "metrics": metrics | {"mrr": within}, "mrr_of_the_whole_list": found["mrr"]})


if __name__ == "__main__":
    main()
