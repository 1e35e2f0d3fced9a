"""How fast a score matrix becomes metrics, ours against RecBole's evaluator and ranx, and whether all agree.

Given to each: float32 scores of 6,040 users by 3,416 items (MovieLens-1M's size), then by 20,000, the items that each
user has seen (164 on average, filtered) and one target a user. Wanted: HR, NDCG, recall and MRR at 10. In the clock is
everything from the matrix to the metrics; reading the matrix is not. Each contender runs in a process of its own, peers
in an environment of their own; the first evaluation of a process, which compiles and fills caches, does not count.

- ours: `rank_targets` with ``--threads`` threads, then `ranking_metrics`, which gives MRR of the whole list as well.
- RecBole: masking as its Trainer does, Collector (lists by ``torch.topk``), Evaluator; in several sizes of batch, the
  fastest is compared. RecBole's own default (eval_batch_size 4096) amounts to one user a batch.
- ranx: masking and ``torch.topk``, for it takes lists; the Run object; ``evaluate``. Each is timed apart as well.

    .venv/bin/python benchmarks/evaluation_speed.py --repeat 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _peers.arguments import at_least
from _peers.environment import peers_python, run
from _peers.matrix import make
from _peers.report import table, write

USERS, SEEN = 6040, 164
#: The most that a metric may differ from ours.
EQUAL = 1e-9


def _fastest(seconds: dict[str, list[float]], names: list[str]) -> tuple[str, float]:
    medians = {name: statistics.median(seconds[name]) for name in names}
    best = min(medians, key=lambda name: medians[name])
    return best, medians[best]


def _case(items: int, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what the contenders found on one matrix, rounds put together."""
    make(folder, users=USERS, items=items, seen=SEEN, seed=asked.seed)
    common = {"folder": str(folder), "threads": asked.threads, "repeat": asked.inner}
    batches = {"batches": [512, USERS, 1] if asked.default_batch else [512, USERS]}
    found: dict[str, Any] = {}
    for turn in range(asked.repeat):
        for name, peer, more in (("ours", False, {}), ("recbole", True, batches), ("ranx", True, {})):
            print(f"{items} items, {name}, round {turn + 1} ...", file=sys.stderr, flush=True)
            answer = run(f"evaluate_{name}", common | more, folder / name, peer=peer)
            before = found.setdefault(name, answer | {"seconds": {part: [] for part in answer["seconds"]}})
            for part, seconds in answer["seconds"].items():
                before["seconds"][part] += seconds
    return found


def _rows(items: int, found: dict[str, Any]) -> list[list[str]]:
    ours, recbole, ranx = (found[name]["seconds"] for name in ("ours", "recbole", "ranx"))
    base = statistics.median(ours["whole"])
    batch, _ = _fastest(recbole, list(recbole))
    shown = [("ours: ranks and metrics", ours["whole"], base), (f"RecBole, {batch}", recbole[batch], base)]
    shown += [(f"RecBole, {name}", seconds, base) for name, seconds in recbole.items() if name != batch]
    shown += [("ranx: lists, Run, evaluate", ranx["whole"], base)]
    metrics = statistics.median(ours["metrics"])
    shown += [("  ours: metrics alone, given ranks", ours["metrics"], metrics)]
    shown += [("  ranx: evaluate alone, given a Run", ranx["evaluate"], metrics)]
    shown += [("  ranx: Run alone, given lists", ranx["run"], metrics)]
    shown += [("  ours: lists of 10, which a night keeps", ours["lists"], base)]
    return [_row(f"{items:,}", name, taken, against) for name, taken, against in shown]


def _row(items: str, name: str, seconds: list[float], against: float) -> list[str]:
    median = statistics.median(seconds)
    times = [f"{value * 1e3:,.1f}" for value in (median, min(seconds), max(seconds))]
    return [items, name, *times, f"{median / against:.1f}"]


def main() -> None:
    """Evaluate each matrix with each contender and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeat", type=at_least(1), default=3, help="rounds in which each contender runs once (default: 3)"
    )
    parser.add_argument("--inner", type=int, default=5, help="evaluations a round (default: 5)")
    parser.add_argument("--items", type=at_least(1), nargs="+", default=[3416, 20_000])
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--default-batch", action="store_true", help="RecBole with one user a batch as well (seconds)")
    asked = parser.parse_args()
    peers_python()
    rows, cases = [], {}
    for items in asked.items:
        with tempfile.TemporaryDirectory() as folder:
            found = _case(items, asked, Path(folder))
        ours = found["ours"]["metrics"]
        apart = {
            name: max(abs(found[name]["metrics"][metric] - ours[metric]) for metric in ours)
            for name in ("recbole", "ranx")
        }
        cases[str(items)] = found | {"largest_difference": apart}
        rows += _rows(items, found)
        print(f"{items:,} items: {ours}; largest difference: {apart}", file=sys.stderr)
    table(["items", "what", "median ms", "min", "max", "× ours"], rows)
    worst = max(value for case in cases.values() for value in case["largest_difference"].values())
    print(
        f"{USERS:,} users, {asked.threads} threads, {asked.repeat} × {asked.inner} times; metrics differ by {worst:.1g}"
    )
    write("evaluation_speed", sys.argv, users=USERS, threads=asked.threads, cases=cases)
    if worst > EQUAL:
        raise SystemExit(f"the metrics must agree to {EQUAL}, found a difference of {worst}")


if __name__ == "__main__":
    main()
