"""How fast a teacher is trained, ours against RecTools' and RecBole's SASRec, and how good each is after what time.

MovieLens-1M in the frozen order, width 64, 2 blocks, 2 heads, windows of 200 events, batches of 128 sequences, full
cross-entropy, dropout 0.2, the same number of threads. Each contender runs in a process of its own, one after the
other, ``--repeat`` times in turn; peers run in an environment of their own, which is made on first use.

*Positions* (training targets) a second is what is compared. A *sequence* is one user's window: its last 201 training
events, so that a sequence holds as many positions on average as ours and RecTools train in an epoch divided by the
users. RecBole trains one position a row: it is given ``--seconds``, and its epoch is extrapolated. CPU time stands
beside wall-clock time, because machines are shared.

    .venv/bin/python benchmarks/training_speed.py --repeat 3

``--to-end`` trains each for ``--epochs`` epochs or ``--cap`` seconds and looks at the test targets after every epoch,
off the clock, with our evaluator (full ranking, seen items filtered): quality at the end, and the training seconds
until NDCG@10 reaches ``--target`` from a cold start. What is done is kept in ``--work`` and not done again.

    .venv/bin/python benchmarks/training_speed.py --to-end --epochs 30 --cap 3600 --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _peers.arguments import at_least
from _peers.environment import peers_python, run
from _peers.moviellens import default_file, prepared
from _peers.report import table, write

#: Contender → its adapter, whether it lives in the peers' environment, what it is asked beyond the rest.
CONTENDERS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "ours-bf16": ("train_ours", False, {"precision": "bf16-mixed"}),
    "ours-fp32": ("train_ours", False, {"precision": "32-true"}),
    "rectools": ("train_rectools", True, {}),
    "recbole": ("train_recbole", True, {}),
}
SIZES = {"width": 64, "blocks": 2, "heads": 2, "length": 200, "dropout": 0.2, "batch_size": 128}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_file(), help="the frozen interactions.parquet")
    parser.add_argument("--work", type=Path, help="folder for what is made (default: a temporary one)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument(
        "--repeat", type=at_least(1), default=3, help="rounds in which each contender runs once (default: 3)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="a contender and round, whole epochs (default: 60)")
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--recbole-rows", type=at_least(1), default=128, help="positions a step of RecBole (default: 128)"
    )
    parser.add_argument("--ours", type=json.loads, default={}, help='JSON over ours: {"training": {}, "model": {}}')
    parser.add_argument("--to-end", action="store_true", help="train to the end and look at the quality")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="with --to-end (default: 30)")
    parser.add_argument("--cap", type=float, default=3600, help="most training seconds, with --to-end (default: 3600)")
    parser.add_argument("--target", type=float, default=0.17, help="NDCG@10 to reach, with --to-end (default: 0.17)")
    parser.add_argument("--fresh", action="store_true", help="do again what lies in --work, with --to-end")
    return parser.parse_args()


def _case(name: str, asked: argparse.Namespace, sequences: Path, turn: int) -> dict[str, Any]:
    budget = (
        {"epochs": asked.epochs, "seconds": asked.cap} if asked.to_end else {"epochs": 1000, "seconds": asked.seconds}
    )
    rates = {"learning_rate": asked.learning_rate, "rows_a_step": asked.recbole_rows}
    common = {"sequences": str(sequences), "threads": asked.threads, "seed": asked.seed + turn, "quality": asked.to_end}
    ours = asked.ours if name.startswith("ours") else {}
    return common | SIZES | rates | budget | CONTENDERS[name][2] | ours


def _ask(name: str, asked: argparse.Namespace, sequences: Path, work: Path, turn: int) -> dict[str, Any]:
    case = _case(name, asked, sequences, turn)
    folder = work / f"{'end' if asked.to_end else 'speed'}-{name}-{turn}"
    kept, before = folder / "answer.json", folder / "case.json"
    if asked.to_end and not asked.fresh and kept.exists() and json.loads(before.read_text(encoding="utf-8")) == case:
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    adapter, peer, _ = CONTENDERS[name]
    print(f"{name}, round {turn + 1} ...", file=sys.stderr, flush=True)
    return run(adapter, case, folder, peer=peer)


def _speed(answer: dict[str, Any], clock: str = "training_seconds") -> float:
    """Return positions a second of training: of whole epochs, or of what RecBole did within its budget."""
    epochs = answer["epochs"]
    done = sum(epoch.get("positions", answer["positions"]) for epoch in epochs)
    return float(done / sum(epoch.get(clock, epoch["seconds"]) for epoch in epochs))


def _times(first: list[float], other: list[float]) -> float:
    """Return the median over rounds of how many times as fast the first is."""
    return statistics.median(ours / theirs for ours, theirs in zip(first, other, strict=True))


def _report_speed(asked: argparse.Namespace, answers: dict[str, list[dict[str, Any]]]) -> None:
    speeds = {name: [_speed(answer) for answer in found] for name, found in answers.items()}
    first = next(iter(answers))
    cpu = {name: [_speed(answer, "cpu_seconds") for answer in found] for name, found in answers.items()}
    each = answers[first][0]["positions_a_sequence"]
    rows, found = [], {}
    for name, rates in speeds.items():
        rate = statistics.median(rates)
        ratio, cpu_ratio = _times(speeds[first], rates), _times(cpu[first], cpu[name])
        epoch = answers[name][0]["positions"] / rate
        spread = f"{min(rates) / each:.0f}..{max(rates) / each:.0f}"
        guessed = " (extrapolated)" if name == "recbole" else ""
        rows.append(
            [
                name,
                f"{rate:,.0f}",
                f"{rate / each:.1f}",
                spread,
                f"{epoch:,.1f}{guessed}",
                f"{ratio:.2f}",
                f"{cpu_ratio:.2f}",
            ]
        )
        found[name] = {
            "positions_per_second": rates,
            "sequences_per_second": rate / each,
            "epoch_seconds": epoch,
            "ratio": ratio,
            "cpu_ratio": cpu_ratio,
            "answers": answers[name],
        }
    table(
        ["contender", "positions/s", "sequences/s", "min..max", "s an epoch", f"{first} is × faster", "by CPU time"],
        rows,
    )
    print(
        f"medians of {asked.repeat} rounds, {asked.threads} threads; a sequence holds {each:.1f} positions on average"
    )
    name = "training_speed" if len(answers) == len(CONTENDERS) else "training_speed_part"
    write(name, sys.argv, sizes=SIZES, threads=asked.threads, contenders=found)


def _epochs(answer: dict[str, Any]) -> float:
    """Return how many epochs were trained; RecBole's are counted in parts."""
    return float(sum(epoch.get("positions", answer["positions"]) for epoch in answer["epochs"]) / answer["positions"])


def _report_end(asked: argparse.Namespace, answers: dict[str, list[dict[str, Any]]]) -> None:
    rows, found = [], {}
    for name, runs in answers.items():
        for turn, answer in enumerate(runs):
            epochs = answer["epochs"]
            reached = next((one["at"] for one in epochs if one["ndcg_at_10"] >= asked.target), None)
            last, best = epochs[-1], max(epochs, key=lambda one: one["ndcg_at_10"])
            kept = answer.get("kept")
            rows.append(
                [
                    f"{name}, seed {asked.seed + turn}",
                    f"{_epochs(answer):.2f}",
                    f"{last['at']:,.0f}",
                    f"{last['ndcg_at_10']:.4f}",
                    f"{best['ndcg_at_10']:.4f}",
                    f"{kept['ndcg_at_10']:.4f}" if kept else "–",
                    f"{reached:,.0f}" if reached else f"not in {last['at']:,.0f}",
                    f"{answer['setup_seconds']:.0f}",
                ]
            )
            found[f"{name}-{asked.seed + turn}"] = answer | {"seconds_to_target": reached}
    head = ["contender", "epochs", "training s", "NDCG@10 last", "best", "kept", f"s to {asked.target}", "setup s"]
    table(head, rows)
    print("test targets, leave-one-out, full ranking; best: the best epoch on test itself; kept: chosen on valid")
    write("training_to_end", sys.argv, sizes=SIZES, target=asked.target, threads=asked.threads, contenders=found)


def main() -> None:
    """Run the contenders in turn and report."""
    asked = _arguments()
    if any(CONTENDERS[name][1] for name in asked.contenders):
        peers_python()
    with tempfile.TemporaryDirectory() as temporary:
        work = (asked.work or Path(temporary)).resolve()
        sequences = prepared(asked.data, work / "data")
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.contenders}
        for turn in range(asked.repeat):
            for name in asked.contenders:
                answers[name].append(_ask(name, asked, sequences, work, turn))
    (_report_end if asked.to_end else _report_speed)(asked, answers)


if __name__ == "__main__":
    main()
