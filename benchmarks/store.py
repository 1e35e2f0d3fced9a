"""The soft-target store: bytes a position, what decoding and exporting cost, and what coding does to a student.

Works on the built-in shop at its default size, with a transformer teacher of a few epochs and students of width 16, and
on a made-up catalogue of 3,416 items with full windows where only speed counts. Four tables:

- bytes a position by part, for several codings, at both sizes of catalogue;
- microseconds to read a position, decoded once and decoded a batch at a time, and a student's epoch from either
  against one from targets that lie in memory as the loss wants them;
- positions a second of the whole stage against the teacher's bare forward pass over the same positions, nothing kept:
  in batches of users as they come ("plain"), and in the export's order and threads ("sorted"), which spares padding;
- KL(teacher || student) and NDCG@10 on held-out positions of students trained on dense targets and on each coding, same
  rows, steps and seeds, last weights: the ratio of the two KL, and its spread over seeds; the change of NDCG@10 against
  dense targets (means over seeds), and its one-sided 95 % lower bound, paired over positions.

Times are CPU seconds of this process as well as wall-clock seconds, in alternating rounds: on a machine that others use
the ratio of CPU seconds is the one to read. With ``--short`` one seed and fewer codings.

    .venv/bin/python benchmarks/store.py --short
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _peers.arguments import at_least
from _peers.report import table, write
from store_night import LENGTH, WIDE, Night, made_up, shop
from store_study import Dense, Exam, Taught, learn

from stillhouse.distill.coding_positions import RowCode, row_shapes
from stillhouse.distill.positions import Windows, windows
from stillhouse.distill.soft_targets import SoftTargets, TargetBatch
from stillhouse.evaluate.paired import lower_bound
from stillhouse.models.checkpoint import load
from stillhouse.params.model import ComputeSpec
from stillhouse.stages import export_soft_targets as export_stage
from stillhouse.train.compute import fabric_of, repeatable

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Coding:
    """What a store keeps of a position."""

    k: int
    score_bits: int
    samples: int
    tail_bits: int

    def __str__(self) -> str:
        return f"K {self.k} × {self.score_bits} b, {self.samples} × {self.tail_bits} b"

    def settings(self) -> dict[str, int]:
        """Return its settings of ``export_soft_targets``."""
        return {
            "k": self.k,
            "score_bits": self.score_bits,
            "tail_samples": self.samples,
            "tail_bits": self.tail_bits,
        }

    def parts(self, n_items: int, temperatures: int) -> dict[str, int]:
        """Return the bytes a position of each tensor."""
        code = RowCode(n_items, self.k, self.score_bits, self.samples, self.tail_bits, temperatures)
        shapes = row_shapes(code, 1)
        return {name: int(np.prod(shape)) * kind.itemsize for name, (kind, shape) in shapes.items()}


#: The default first; then one thing changed at a time.
CODINGS = [
    Coding(50, 4, 40, 5),
    Coding(50, 4, 0, 5),
    Coding(50, 4, 8, 5),
    Coding(50, 4, 16, 5),
    Coding(50, 4, 24, 5),
    Coding(50, 4, 64, 5),
    Coding(50, 2, 40, 5),
    Coding(50, 3, 40, 5),
    Coding(50, 6, 40, 5),
    Coding(50, 8, 40, 7),
    Coding(50, 4, 40, 3),
    Coding(50, 4, 40, 4),
    Coding(32, 4, 40, 5),
    Coding(100, 4, 40, 5),
    Coding(50, 4, 128, 5),
    # As many bytes as the first, or one more or less: bits of the k best given to draws.
    Coding(50, 3, 60, 4),
    Coding(50, 3, 80, 3),
    Coding(50, 2, 72, 4),
    Coding(50, 2, 60, 5),
]
SHORT = [CODINGS[0], CODINGS[1], CODINGS[3], CODINGS[8]]


class Memory(SoftTargets):
    """A store whose targets lie in memory as the loss wants them: one gather an array, nothing else."""

    def __init__(self, store: SoftTargets, temperature: float) -> None:
        """Read all of ``store`` at one temperature."""
        vars(self).update(vars(store))
        self._all = vars(store.batch(np.arange(len(store)), temperature))

    def batch(self, ids: np.ndarray, temperature: float, *, hidden: bool = False, draws: bool = True) -> TargetBatch:
        """Return the rows ``ids``; the states of none are kept here, whether ``hidden`` asks for them or not."""
        whole = {name: array for name, array in self._all.items() if isinstance(array, np.ndarray)}
        if not draws:
            whole |= {name: whole[name][:, :0] for name in ("tail_items", "tail_scores", "tail_logq")}
        return TargetBatch(temperature, **{name: np.take(array, ids, axis=0) for name, array in whole.items()})


class Clock:
    """Wall-clock and CPU seconds of things done in alternating rounds."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def rounds(self, number: int, things: Mapping[str, Callable[[], Any]]) -> None:
        """Do each of ``things`` once unmeasured, and then all of them ``number`` times over."""
        for turn in range(number + 1):
            for name, thing in things.items():
                wall, cpu = time.perf_counter(), time.process_time()
                thing()
                if turn:
                    self.wall.setdefault(name, []).append(time.perf_counter() - wall)
                    self.cpu.setdefault(name, []).append(time.process_time() - cpu)

    def ratio(self, name: str, other: str, kind: str = "cpu") -> float:
        """Return the median over rounds of seconds of ``name`` against those of ``other``."""
        seconds = vars(self)[kind]
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    def median(self, name: str, kind: str = "cpu") -> float:
        """Return the median seconds."""
        return statistics.median(vars(self)[kind][name])


def bytes_table(codings: list[Coding], n_items: int, temperatures: int) -> list[dict[str, Any]]:
    """Print bytes a position by part."""
    rows, found = [], []
    for coding in codings:
        small, wide = (coding.parts(size, temperatures) for size in (n_items, WIDE))
        rest = wide["scale"] + wide["peak"] + wide["tail_lse"] + wide["tail_scale"]
        found.append({"coding": vars(coding), str(n_items): small, str(WIDE): wide})
        cells = [wide["items"], wide["scores"], wide["tail_scores"], rest, sum(wide.values()), sum(small.values())]
        rows.append([str(coding), *map(str, cells)])
    head = ["bytes a position", "items", "scores", "draws", "scales, peak, lse", f"of {WIDE:,}", f"of {n_items:,}"]
    table(head, rows)
    return found


def bare(night: Night, compute: ComputeSpec, batch_size: int, alike: bool) -> Callable[[], None]:
    """Return the bare forward pass over all positions of the export, in parts of as many scores as the export holds."""
    model, events = load(night.folder / "teacher")[0], night.events
    fabric, plan = fabric_of(compute), windows(events.train_length, LENGTH)
    rows = max(1, export_stage._CELLS // (model.n_items + 1))
    batches = [plan.part(start, start + batch_size) for start in range(0, len(plan), batch_size)]

    @torch.inference_mode()
    def forward(batch: Windows) -> None:
        inputs = torch.from_numpy(events.padded(batch.users, batch.first + batch.counts, int(batch.counts.max())))
        with fabric.autocast():
            score = model.position_scorer(inputs, torch.from_numpy(batch.users))
            for start in range(0, int(batch.counts.sum()), rows):
                score(slice(start, start + rows))

    def by_length(batch: Windows) -> None:
        order = np.argsort(batch.counts, kind="stable")
        for start in range(0, len(batch), export_stage._ALIKE):
            some = np.sort(order[start : start + export_stage._ALIKE])
            forward(Windows(batch.users[some], batch.first[some], batch.counts[some]))

    def run() -> None:
        with repeatable(compute):
            if not alike:
                for batch in batches:
                    forward(batch)
                return
            with ThreadPoolExecutor(compute.threads, initializer=partial(torch.set_num_threads, 1)) as pool:
                list(pool.map(by_length, batches))

    return run


def export_table(nights: Mapping[str, Night], rounds: int, precisions: list[str], threads: int) -> list[dict[str, Any]]:
    """Print positions a second of the export against the bare forward pass."""
    rows, found = [], []
    for name, night in nights.items():
        positions = int(windows(night.events.train_length, LENGTH).counts.sum())
        for precision in precisions:
            compute = ComputeSpec(device="cpu", precision=precision, threads=threads)
            changes = CODINGS[0].settings() | {"compute": compute.model_dump()}
            size = night.params["export_soft_targets"]["batch_size"]
            clock = Clock()
            clock.rounds(
                rounds,
                {
                    "plain": bare(night, compute, size, alike=False),
                    "sorted": bare(night, compute, size, alike=True),
                    "export": partial(night.export, "timed", changes),
                },
            )
            speed = {kind: positions / clock.median(kind, "wall") for kind in ("plain", "sorted", "export")}
            cpu = {kind: positions / clock.median(kind) for kind in speed}
            against = {kind: clock.ratio(kind, "export") for kind in ("plain", "sorted")}
            walls = {kind: clock.ratio(kind, "export", "wall") for kind in ("plain", "sorted")}
            found.append({"night": name, "precision": precision, "positions": positions, "per_s": speed})
            found[-1] |= {"per_cpu_s": cpu, "ratio_cpu": against, "ratio_wall": walls}
            cells = [f"{value:,.0f}" for value in (*speed.values(), cpu["export"])]
            shares = [f"{value:.2f}" for value in (against["plain"], against["sorted"], walls["plain"])]
            rows.append([f"{name}, {precision}", *cells, *shares])
    head = ["positions/s", "bare, plain", "bare, sorted", "export", "a CPU s"]
    table([*head, "of plain (CPU)", "of sorted (CPU)", "of plain (wall)"], rows)
    return found


def reading_table(nights: Mapping[str, Night], rounds: int) -> list[dict[str, Any]]:
    """Print what reading a position costs, and a student's epoch from the store against one from memory."""
    rows, found = [], []
    for name, night in nights.items():
        path, _ = night.export("read", CODINGS[0].settings())
        cached, piecemeal = night.open(path), night.open(path, cache_bytes=0)
        memory = Memory(piecemeal, 1.0)
        ids = np.random.default_rng(0).permutation(len(cached))
        parts = np.array_split(ids, max(1, len(ids) // 1500))
        stores = {"memory": memory, "decoded once": cached, "a batch at a time": piecemeal}
        clock, epochs = Clock(), Clock()
        clock.rounds(rounds, {kind: partial(_read, store, parts) for kind, store in stores.items()})
        epochs.rounds(rounds, {kind: partial(_epoch, night, store) for kind, store in stores.items()})
        entry: dict[str, Any] = {"night": name, "positions": len(cached)}
        for kind in stores:
            micro = clock.median(kind) / len(ids) * 1e6
            against = epochs.ratio(kind, "memory") if kind != "memory" else 1.0
            entry[kind] = {"us_a_position": micro, "epoch_of_memory": against, "epoch_seconds": epochs.median(kind)}
            rows.append([f"{name}, {kind}", f"{micro:.2f}", f"{epochs.median(kind):.2f}", f"{against:.3f}"])
        found.append(entry)
    table(["reading (CPU time)", "µs a position", "s a student's epoch", "of memory's"], rows)
    return found


def _read(store: SoftTargets, parts: list[np.ndarray]) -> None:
    for part in parts:
        store.batch(part, 1.0)


def _epoch(night: Night, store: SoftTargets) -> None:
    learn(night, Taught(night, store, 1.0), 1, seed=1)


def quality_table(
    night: Night, codings: list[Coding], temperatures: list[float], seeds: list[int], epochs: int
) -> list[dict[str, Any]]:
    """Print how far students end from the teacher, dense and coded."""
    rows: list[list[str]] = []
    found: list[dict[str, Any]] = []
    n_items = night.words.n_items
    for temperature in temperatures:
        exam, dense = Exam(night, temperature), Dense(night, temperature)
        base = [exam.mark(learn(night, dense, epochs, seed)) for seed in seeds]
        far, gains = statistics.mean(mark.far for mark in base), np.mean([mark.gains for mark in base], axis=0)
        ndcg = float(gains.mean())
        found.append({"temperature": temperature, "coding": None, "far": [mark.far for mark in base], "ndcg": ndcg})
        rows.append([f"T {temperature:g}, dense", f"{4 * n_items}", f"{far:.4f}", "1.000", "", f"{ndcg:.4f}", "", ""])
        for coding in codings:
            got = []
            for seed in seeds:
                store = night.open(night.export("quality", coding.settings() | {"seed": seed})[0])
                got.append(exam.mark(learn(night, Taught(night, store, temperature), epochs, seed)))
            ratios = [one.far / its.far for one, its in zip(got, base, strict=True)]
            change = np.mean([mark.gains for mark in got], axis=0) - gains
            bound = lower_bound(change, 0.95, 2000, 17) / ndcg
            entry: dict[str, Any] = {
                "temperature": temperature,
                "coding": vars(coding),
                "far": [mark.far for mark in got],
            }
            found.append(entry | {"ratios": ratios, "ndcg_change": float(change.mean()) / ndcg, "ndcg_bound": bound})
            size = sum(coding.parts(n_items, 3).values())
            cells = [
                f"{statistics.mean(mark.far for mark in got):.4f}",
                f"{statistics.mean(ratios):.3f}",
                f"{min(ratios):.3f} to {max(ratios):.3f}",
                f"{ndcg + float(change.mean()):.4f}",
                f"{float(change.mean()) / ndcg:+.1%}",
                f"{bound:+.1%}",
            ]
            rows.append([f"T {temperature:g}, {coding}", str(size), *cells])
    table(
        [
            f"{epochs} epochs, {len(seeds)} seeds",
            "bytes",
            "held-out KL",
            "of dense",
            "seeds",
            "NDCG@10",
            "change",
            "bound",
        ],
        rows,
    )
    return found


def main() -> None:
    """Measure all of it and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--short", action="store_true", help="one seed, few codings: under three minutes on two idle cores"
    )
    parser.add_argument("--parts", nargs="+", choices=("bytes", "export", "reading", "quality"), default=None)
    parser.add_argument("--epochs", type=at_least(1), default=30, help="of a student (default: 30)")
    parser.add_argument(
        "--seeds", type=at_least(1), default=None, help="students of each coding (default: 3; 1 with --short)"
    )
    parser.add_argument("--repeat", type=at_least(1), default=5, help="rounds of what is timed (default: 5)")
    parser.add_argument("--threads", type=at_least(1), default=2)
    asked = parser.parse_args()
    parts = asked.parts or ["bytes", "export", "reading", "quality"]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    seeds = list(range(1, 1 + (asked.seeds or (1 if asked.short else 3))))
    found: dict[str, Any] = {}
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        night = shop(Path(folder) / "shop", params, epochs=6 if asked.short else 15)
        nights = {"shop": night, f"{WIDE:,} items": made_up(Path(folder) / "wide", params, 400)}
        if "bytes" in parts:
            temperatures = len(params["export_soft_targets"]["temperatures"])
            found["bytes"] = bytes_table(CODINGS, night.words.n_items, temperatures)
            print()
        if "export" in parts:
            precisions = ["32-true"] if asked.short else ["32-true", "bf16-mixed"]
            found["export"] = export_table(nights, asked.repeat, precisions, asked.threads)
            print()
        if "reading" in parts:
            found["reading"] = reading_table(nights, asked.repeat)
            print()
        if "quality" in parts:
            codings = SHORT if asked.short else CODINGS
            temperatures_ = [1.0] if asked.short else [1.0, 2.0]
            found["quality"] = quality_table(night, codings, temperatures_, seeds, asked.epochs)
    name = "store_part" if asked.short or asked.parts else "store"
    write(name, sys.argv, settings={"epochs": asked.epochs, "seeds": seeds, "threads": asked.threads}, **found)


if __name__ == "__main__":
    main()
