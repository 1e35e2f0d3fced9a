"""How much memory training takes as the catalogue grows: full softmax in parts, and sampled softmax.

A small model (width 32, one block, histories of 50 events) learns a made-up catalogue of 10^4, 10^5 and 10^6 items,
each in a process of its own. Shown is the most memory that the process held; beside it what it held before training
began (Python, torch, the events, the item table), what the item table takes with its gradient and Adam's two moments,
and what one table of all scores of a step with its gradient would take, which nobody here ever holds: two numbers are
measured, two are computed. Early stopping looks at ``--valid-users`` users; its ranking and the saved state are in it.

    .venv/bin/python benchmarks/catalogue_memory.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _peers.arguments import at_least
from _peers.environment import run
from _peers.report import table, write

SIZES = {"width": 32, "blocks": 1, "heads": 2, "length": 50, "batch_size": 64}


def main() -> None:
    """Train each model over each catalogue and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=at_least(1), nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--softmax", nargs="+", choices=("full", "sampled"), default=["full", "sampled"])
    parser.add_argument("--negatives", type=int, default=2000, help="items drawn a step (default: 2000)")
    parser.add_argument("--precision", default="32-true", help="Fabric's name (default: 32-true)")
    parser.add_argument("--users", type=at_least(1), default=128, help="sequences; steps of 64 (default: 128)")
    parser.add_argument("--valid-users", type=int, default=128)
    parser.add_argument("--repeat", type=at_least(1), default=1, help="rounds (default: 1)")
    parser.add_argument("--threads", type=at_least(1), default=2)
    asked = parser.parse_args()
    common = {"precision": asked.precision, "users": asked.users, "valid_users": asked.valid_users, "epochs": 1}
    common |= SIZES | {"threads": asked.threads, "seed": 1}
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.repeat):
            for items in asked.items:
                for name in asked.softmax:
                    print(f"{items:,} items, {name}, round {turn + 1} ...", file=sys.stderr, flush=True)
                    case = common | {"items": items, "negatives": asked.negatives if name == "sampled" else None}
                    answer = run("train_catalogue", case, Path(folder) / f"{items}-{name}", peer=False)
                    found.setdefault(f"{items}-{name}", []).append(answer | {"items": items, "loss": name})
    positions = SIZES["batch_size"] * SIZES["length"]
    rows = []
    for answers in found.values():
        one = answers[0]
        peak = statistics.median(answer["peak_mib"] for answer in answers)
        step = statistics.median(answer["epoch_seconds"][0] / answer["steps_an_epoch"] for answer in answers)
        scores = 2 * positions * one["items"] * 4 / 2**20
        mib = [f"{value:,.0f}" for value in (peak, one["before_mib"], 4 * one["table_mib"], scores)]
        rows.append([f"{one['items']:,}", one["loss"], *mib, f"{step:.2f}"])
    table(["items", "softmax", "peak MiB", "before", "4 × item table", "2 × all scores", "s a step"], rows)
    print(
        f"a step: {positions:,} positions, {asked.negatives:,} items drawn; {asked.precision}, {asked.threads} threads"
    )
    write("catalogue_memory", sys.argv, sizes=SIZES, negatives=asked.negatives, precision=asked.precision, runs=found)


if __name__ == "__main__":
    main()
