"""Evaluates a score matrix with ranx: one case in, one answer out (see `environment.run`)."""

from __future__ import annotations

import time
from importlib.metadata import version

import torch
from contender import answer, case
from matrix import Matrix
from ranx import Qrels, Run, evaluate


def main() -> None:
    """Time lists, their Run and its evaluation apart, ``repeat`` times after one that compiles and does not count."""
    asked = case()
    torch.set_num_threads(asked["threads"])
    matrix = Matrix(asked["folder"])
    scores = torch.from_numpy(matrix.scores)
    row, item = (torch.from_numpy(part) for part in matrix.seen)
    users, items = ([str(number) for number in range(length)] for length in matrix.scores.shape)
    truth = Qrels.from_dict({user: {items[item]: 1} for user, item in zip(users, matrix.targets.tolist(), strict=True)})
    names = {"hit_rate@10": "hr", "ndcg@10": "ndcg", "recall@10": "recall", "mrr@10": "mrr"}
    seconds: dict[str, list[float]] = {"whole": [], "lists": [], "run": [], "evaluate": []}
    for turn in range(asked["repeat"] + 1):
        began = time.perf_counter()
        # ranx takes lists, not scores: the fastest way to them in its environment.
        scores[:, 0] = -torch.inf
        scores[(row, item)] = -torch.inf
        values, best = torch.topk(scores, 10, dim=1)
        listed = time.perf_counter()
        rows = zip(users, best.tolist(), values.tolist(), strict=True)
        run = Run.from_dict({user: dict(zip([items[i] for i in top], own, strict=True)) for user, top, own in rows})
        made = time.perf_counter()
        found = evaluate(truth, run, list(names), threads=asked["threads"])
        done = time.perf_counter()
        if turn:
            seconds["lists"].append(listed - began)
            seconds["run"].append(made - listed)
            seconds["evaluate"].append(done - made)
            seconds["whole"].append(done - began)
    metrics = {names[name]: float(value) for name, value in found.items()}
    answer({"seconds": seconds, "metrics": metrics, "versions": {"ranx": version("ranx")}})


if __name__ == "__main__":
    main()
