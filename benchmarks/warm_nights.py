"""What a warm night costs and what it loses: every night cold, against every night warm, against warm with cold ones.

Plays several nights of one source. Ingest, validate, admit and prepare run once a night (they are the same for every
line, and counted in each); then each *line* trains its teacher, checks it, exports its soft targets, and trains,
packages and evaluates each student:

    cold      from nothing, every night
    warm      from its own models of the night before
    cold/N    as warm, but cold every N nights

In the clock is everything that `stillhouse run` performs as stages, except `evaluate_champion`: stage functions,
called in one process, one after the other. Not in it: starting processes, DVC, Prefect, MLflow, the gate, and the
scoring of the teacher's time window, which only this program wants ranks of. Seconds are wall-clock; CPU seconds stand
beside them, because machines are shared. Nights that two lines start alike are played once. Where cold nights are too
dear, ``--compare-every N`` plays them on every N-th night alone, and on the others nothing is held against them.

Quality is NDCG@10 on the time window: what happened after last night's `as_of`, which no model of any line has seen.
Warm is held against cold on the same users by the paired bootstrap that the gate uses; *bound* is the one-sided 95 %
lower bound of the difference as a share of cold's mean, one night at a time and over all nights (a user counted once).

    .venv/bin/python benchmarks/warm_nights.py shop --size large --nights 10 --cold-every 5 --compare-every 2
    .venv/bin/python benchmarks/warm_nights.py yelp --cold-every 3 --shared ../shared
    .venv/bin/python benchmarks/warm_nights.py --short

Prints a table and writes ``benchmarks/results/warm_nights_SOURCE.json``. A stage that was finished is kept in the work
folder and not done again, so that the program can be stopped and started; other settings have a folder of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the runner does: threads that wait must not spin

import yaml
from _peers.arguments import at_least
from warm_nights_play import COLD, WARM, Line, Play, changed, origin, play_data, play_models
from warm_nights_table import report, show

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    """Play the nights and report."""
    options = arguments()
    play, lines = planned(options)
    for night in range(len(play.nights)):
        play_data(play, night)
        for line in lines:
            if origin(line, night) is line and play.plays(lines, line, night):
                began = time.perf_counter()
                play_models(play, line, night)
                took = time.perf_counter() - began
                print(f"{line.name}, night {night}: {took:.0f} s", file=sys.stderr, flush=True)
    result = report(play, lines)
    show(play, lines, result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"warm_nights_{options.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", choices=("shop", "yelp"), default="shop")
    parser.add_argument("--short", action="store_true", help="a small shop, three nights: for make bench")
    parser.add_argument("--nights", type=at_least(1), help="how many (default: 10 of the shop, 6 of Yelp)")
    parser.add_argument("--size", default="large", help="of the shop")
    parser.add_argument("--users", type=at_least(1), help="a smaller shop; or the first so many users of Yelp")
    parser.add_argument("--items", type=at_least(1), help="of a smaller shop")
    parser.add_argument("--rows", type=at_least(1), help="of a smaller shop, in its first sixty days")
    parser.add_argument("--shared", type=Path, help="folder with data/yelp-blocks (or STILLHOUSE_SHARED)")
    parser.add_argument("--cold-every", type=at_least(1), help="a third line: cold every so many nights")
    parser.add_argument(
        "--compare-every", type=at_least(1), default=1, help="play cold nights on every N-th night alone"
    )
    parser.add_argument("--epochs", type=at_least(1), help="most epochs of a cold training, teacher and students")
    parser.add_argument("--students", nargs="*", help="which of params.yaml's (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE", help="another value for a setting")
    parser.add_argument(
        "--warm-set", nargs="*", default=[], metavar="PATH=VALUE", help="the same, on warm nights alone"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".stillhouse" / "bench", help="where nights are kept")
    parser.add_argument("--name", help="of the result file (default: the source)")
    options = parser.parse_args()
    options.name = options.name or ("short" if options.short else options.source)
    return options


SHORT = {
    "validate.min_rows": 100,
    "train_teacher.model.width": 32,
    "train_teacher.model.length": 30,
    "check_teacher.min_over_popularity": 0.0,
    "check_teacher.max_drop": 1.0,
    "evaluate.latency_requests": 50,
}


def planned(options: argparse.Namespace) -> tuple[Play, list[Line]]:
    """Turn the command line into what is played and on which lines."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = dict(SHORT) if options.short else {}
    if options.short:
        options.users, options.items, options.rows, options.nights = 600, 400, 20_000, 3
        options.epochs = options.epochs or 12
    if options.epochs is not None:
        settings |= {f"{name}.training.epochs": options.epochs for name in ("train_teacher", "train_student")}
    document = changed(document, settings | pairs(options.set))
    if options.short or options.students:
        wanted = options.students or list(document["students"])[:1]
        if missing := sorted(set(wanted) - set(document["students"])):
            raise SystemExit(f"--students must name students of params.yaml, found no {', '.join(missing)}")
        document["students"] = {name: document["students"][name] for name in wanted}
    source, first = shop(document, options) if options.source == "shop" else yelp(document, options)
    count = options.nights or (10 if options.source == "shop" else 6)
    nights = [first + timedelta(days=day) for day in range(count)]
    warm = pairs(options.warm_set)
    facts = json.dumps([document, warm, source, first.isoformat()], sort_keys=True)
    work = options.work / f"{options.name}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"
    lines = [COLD, WARM]
    if options.cold_every:
        lines.append(Line(f"cold/{options.cold_every}", options.cold_every))
    return Play(document, warm, source, nights, work, options.compare_every), lines


def shop(document: Mapping[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], datetime]:
    """Return the shop as a source, and its first night."""
    made = changed(
        document["source"],
        {
            "kind": "shop",
            "shop": {
                "size": options.size,
                "seed": 7,
                "users": options.users,
                "items": options.items,
                "rows": options.rows,
            },
        },
    )
    return made, datetime(2026, 3, 2, tzinfo=UTC)


def yelp(document: Mapping[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], datetime]:
    """Return the six blocks as a source, and the day of the first."""
    shared = options.shared or Path(os.environ.get("STILLHOUSE_SHARED", ROOT.parent / "shared"))
    path = shared / "data" / "yelp-blocks" / "interactions.parquet"
    if not path.is_file():
        raise SystemExit(f"yelp-blocks must lie in {shared}/data, found no {path.name}: give --shared")
    if options.users:
        path = first_users(path, options)
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp", "position": None, "rating": None}
    made = changed(
        document["source"],
        {"kind": "file", "path": str(path), "columns": {**columns, "event": None}, "later_rows": "leave"},
    )
    return made, datetime(2024, 1, 1, tzinfo=UTC)


def first_users(path: Path, options: argparse.Namespace) -> Path:
    """Write the rows of the users with the lowest numbers, and return where."""
    import pandas as pd

    cut = options.work / f"yelp-{options.users}.parquet"
    if not cut.is_file():
        rows = pd.read_parquet(path)
        cut.parent.mkdir(parents=True, exist_ok=True)
        rows[rows["user_id"] < options.users].to_parquet(cut, index=False)
    return cut


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """Read ``PATH=VALUE`` settings; a value is YAML."""
    if wrong := [text for text in given if "=" not in text]:
        raise SystemExit(f"a setting must be given as PATH=VALUE, got {', '.join(wrong)}")
    return {path: yaml.safe_load(value) for path, _, value in (text.partition("=") for text in given)}


if __name__ == "__main__":
    main()
