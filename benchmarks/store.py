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
import inspect
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _peers.report import table, write

from stillhouse.data.files import write_json, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.sources import fingerprint
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.coding_positions import RowCode, row_shapes
from stillhouse.distill.hard import HardObjective
from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.positions import Windows, seen_pairs, spread, windows
from stillhouse.distill.soft_targets import SoftTargets, TargetBatch
from stillhouse.evaluate.paired import lower_bound
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, load, save
from stillhouse.models.protocol import Recommender
from stillhouse.params.base import build as build_params
from stillhouse.params.base import stage_values
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.params.source import SourceSpec
from stillhouse.reporting import SilentReporter
from stillhouse.runner.stage import load_stage
from stillhouse.stages import export_soft_targets as export_stage
from stillhouse.train.compute import fabric_of, repeatable
from stillhouse.train.job import Job
from stillhouse.train.loop import train
from stillhouse.train.optimizer import adamw, set_learning_rate
from stillhouse.train.rows import TrainingRows
from stillhouse.train.softmax import catalogue_loss

ROOT = Path(__file__).parents[1]
AS_OF = "2026-03-02T00:00:00+00:00"
LENGTH = 50
TEACHER = TransformerSpec(kind="transformer", width=64, blocks=2, heads=2, length=LENGTH, dropout=0.2)
STUDENT = TransformerSpec(kind="transformer", width=16, blocks=1, heads=1, length=LENGTH, dropout=0.1)
#: Items of the catalogue that only speed is measured on: MovieLens-1M's.
WIDE = 3416


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


class Night:
    """Vocabulary, sequences and a teacher on disk."""

    def __init__(self, folder: Path, params: Mapping[str, Any]) -> None:
        """Stand in ``folder``, with the settings of a whole params.yaml."""
        self.folder, self.params = folder, params
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "checked.json", {"passed": True})
        write_none(folder / "none")

    @property
    def words(self) -> Vocabulary:
        """The vocabulary."""
        return Vocabulary.load(self.folder / "vocabulary")

    @property
    def events(self) -> Sequences:
        """The sequences."""
        return Sequences.open(self.folder / "sequences")

    def stage(self, name: str, changes: Mapping[str, Any] | None = None, **paths: Path) -> Mapping[str, Any]:
        """Run the stage ``name``; a path that it takes and that is not given holds nothing."""
        function, model = load_stage(name)
        night = {"as_of": AS_OF, "source": self.params["source"], "fingerprint": "0" * 64}
        values = stage_values(model, dict(self.params), night, None)
        for needed in set(inspect.signature(function).parameters) - {"params", "reporter", *paths}:
            paths[needed] = self.folder / "none"
        found: Mapping[str, Any] = function(
            **paths, params=build_params(model, {**values, **(changes or {})}, name), reporter=SilentReporter()
        )
        return found

    def keep(self, model: Recommender, spec: TransformerSpec) -> None:
        """Make ``model`` the teacher."""
        save(self.folder / "teacher", model, Header(spec, self.words.n_items, self.words.digest, False, 1, False))

    def export(self, name: str, changes: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
        """Write the store ``name``; what stood there would be kept where it fits, so it goes first."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        resume = Path(tempfile.mkdtemp(dir=self.folder))
        figures = self.stage(
            "export_soft_targets",
            changes,
            teacher=self.folder / "teacher",
            checked=self.folder / "checked.json",
            vocabulary=self.folder / "vocabulary",
            sequences=self.folder / "sequences",
            soft_targets=self.folder / name,
            resume=resume,
        )
        return self.folder / name, figures

    def open(self, path: Path, **options: Any) -> SoftTargets:
        """Open a store of it."""
        return SoftTargets.open(path, vocabulary=self.words.digest, repeat_items=False, **options)


def shop(folder: Path, params: Mapping[str, Any], epochs: int) -> Night:
    """Prepare the built-in shop and train its teacher."""
    night = Night(folder, params)
    source = {"source": params["source"] | {"kind": "shop"}}
    mark = fingerprint(build_params(SourceSpec, source["source"], "source"), datetime.fromisoformat(AS_OF))
    night.stage("ingest", source | {"fingerprint": mark}, snapshot=folder / "snapshot")
    night.stage(
        "validate",
        snapshot=folder / "snapshot",
        accepted=folder / "accepted",
        quarantine=folder / "quarantine",
        profile=folder / "profile",
        verdict=folder / "verdict.json",
        data_docs=folder / "data_docs",
    )
    night.stage("admit", verdict=folder / "verdict.json", admitted=folder / "admitted.json")
    night.stage(
        "prepare",
        accepted=folder / "accepted",
        admitted=folder / "admitted.json",
        vocabulary=folder / "vocabulary",
        sequences=folder / "sequences",
    )
    model = build(TEACHER, night.words.n_items, seed=1)
    training = TrainingSpec(epochs=epochs, batch_size=64, learning_rate=2e-3, patience=epochs, schedule="cosine")
    job = Job(HardObjective(), night.events, training, ComputeSpec(), 1, False, folder / "teacher-resume", "teacher")
    job.resume.mkdir()
    train(model, job, SilentReporter())
    night.keep(model, TEACHER)
    return night


def made_up(folder: Path, params: Mapping[str, Any], users: int) -> Night:
    """Write ``users`` histories of 150 events over `WIDE` items, and a teacher that learnt nothing but has opinions."""
    night = Night(folder, params)
    rng = np.random.default_rng(0)
    liked = rng.pareto(1.0, WIDE) + 0.05
    rows = [rng.choice(WIDE, 152, replace=False, p=liked / liked.sum()) + 1 for _ in range(users)]
    items = np.concatenate(rows).astype(np.int32)
    names = [f"i{number}" for number in range(1, WIDE + 1)]
    words = Vocabulary(
        item_ids=["", *names],
        user_ids=[f"u{number}" for number in range(users)],
        popularity=np.bincount(items, minlength=WIDE + 1),
        titles=[None] * (WIDE + 1),
        texts=[None] * (WIDE + 1),
        categories=[None] * (WIDE + 1),
        as_of=AS_OF,
        has_items=False,
    )
    words.save(folder / "vocabulary")
    empty = np.empty((0, 3), np.int64)
    Sequences(
        items=items,
        times=np.arange(len(items), dtype=np.int64),
        weights=np.ones(len(items), np.float32),
        offsets=np.arange(users + 1, dtype=np.int64) * 152,
        train_length=np.full(users, 150, np.int32),
        valid=empty,
        test=empty,
        window=empty,
        n_items=WIDE,
        vocabulary=words.digest,
        repeat_items=False,
        order="position",
        window_start=None,
        window_end=None,
        window_reason="made up",
    ).save(folder / "sequences")
    model = build(TEACHER, WIDE, seed=1)
    with torch.no_grad():
        model.items.weight.mul_(12.0)
    night.keep(model.eval(), TEACHER)
    return night


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


class Taught:
    """Learns from a store alone (alpha 0), in the parts that the training loop uses."""

    def __init__(self, night: Night, store: SoftTargets, temperature: float) -> None:
        """Read ``store``."""
        self._objective = MixedObjective(store, night.events, alpha=0.0, temperature=temperature)

    def loss(self, model: Any, histories: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        states, _ = model.training_states(histories, batch.targets)
        return catalogue_loss(states, model.items.weight, self._objective.lesson(batch)).total


class Dense:
    """Learns from every score of the teacher, held in memory."""

    def __init__(self, night: Night, temperature: float) -> None:
        """Score all training positions."""
        events = night.events
        plan = windows(events.train_length, LENGTH)
        self._temperature = temperature
        self._offsets = np.zeros(events.n_users, np.int64)
        self._offsets[plan.users] = np.cumsum(plan.counts) - plan.counts - plan.first
        parts = [teacher_logs(night, plan.part(at, at + 256), temperature) for at in range(0, len(plan), 256)]
        self._logs = torch.cat(parts)

    def loss(self, model: Any, histories: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the loss of a batch, times temperature² as everywhere."""
        states, _ = model.training_states(histories, batch.targets)
        logs = self._logs[torch.from_numpy(self._offsets)[batch.users] + batch.steps]
        return divergence(logs, model.scores(states), self._temperature).mean() * self._temperature**2


def divergence(logs: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL of the student's ``scores`` from the teacher's ``logs`` (-inf: no candidate), [N]."""
    absent = torch.isneginf(logs)
    student = torch.log_softmax(scores.masked_fill(absent, -torch.inf) / temperature, dim=1)
    return (logs.exp() * (logs - student).masked_fill(absent, 0.0)).sum(dim=1)


@torch.inference_mode()
def teacher_logs(night: Night, batch: Windows, temperature: float, last: bool = False) -> torch.Tensor:
    """Log-probabilities of the teacher over the candidates at the positions of ``batch``, or the ``last`` of each."""
    model, events = load(night.folder / "teacher")[0], night.events
    inputs = torch.from_numpy(events.padded(batch.users, batch.first + batch.counts, int(batch.counts.max())))
    rows, steps = spread(batch.first, batch.counts)
    scores = model.position_scores(inputs).clone()
    users = batch.users[rows]
    seen = seen_pairs(events.items, events.offsets, users, steps)
    scores[:, 0] = -torch.inf
    scores[torch.from_numpy(seen[0]), torch.from_numpy(seen[1])] = -torch.inf
    if last:
        scores = scores[torch.from_numpy(np.cumsum(batch.counts) - 1)]
    return torch.log_softmax(scores / temperature, dim=1).clone()


def learn(night: Night, lesson: Taught | Dense, epochs: int, seed: int) -> Any:
    """Train a student for ``epochs``; the learning rate falls as a cosine to 0."""
    training = TrainingSpec(epochs=epochs, batch_size=128, learning_rate=0.01)
    with repeatable(ComputeSpec(threads=2)):
        torch.manual_seed(seed)
        model = build(STUDENT, night.words.n_items, seed=seed).train()
        rows = TrainingRows(night.events, LENGTH)
        optimizer = adamw(model, training)
        plans = [rows.plan(seed, epoch, training.batch_size) for epoch in range(epochs)]
        steps, done = sum(map(len, plans)), 0
        for batches in plans:
            for index in batches:
                histories, batch = rows.batch(index)
                optimizer.zero_grad()
                lesson.loss(model, histories, batch).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                rise, fall = min(1.0, (done + 1) / 50), 0.5 * (1.0 + np.cos(np.pi * done / steps))
                set_learning_rate(optimizer, 0.01 * rise * fall)
                optimizer.step()
                done += 1
    return model.eval()


@dataclass(frozen=True)
class Mark:
    """How a student did on the held-out positions."""

    far: float
    """Mean KL from the teacher, in nats."""
    gains: np.ndarray
    """float64 [positions]: each one's part of NDCG@10."""


class Exam:
    """Held-out positions: those that the validation and test targets are asked at."""

    def __init__(self, night: Night, temperature: float) -> None:
        """Ask the teacher."""
        events = night.events
        targets = np.concatenate([np.asarray(events.targets("valid")), np.asarray(events.targets("test"))])
        targets = targets[targets[:, 1] > 0]
        counts = np.minimum(targets[:, 1], LENGTH)
        asked = Windows(targets[:, 0], targets[:, 1] - counts, counts)
        self._temperature = temperature
        self._histories = torch.from_numpy(events.padded(asked.users, targets[:, 1], LENGTH))
        parts = [
            teacher_logs(night, asked.part(at, at + 256), temperature, last=True) for at in range(0, len(asked), 256)
        ]
        self._logs = torch.cat(parts)
        self._items = torch.from_numpy(targets[:, 2].copy())

    @torch.inference_mode()
    def mark(self, model: Any) -> Mark:
        """Return how far ``model`` is from the teacher, and what it finds."""
        scores = torch.cat([model(part) for part in self._histories.split(512)])
        far = divergence(self._logs, scores, self._temperature).mean()
        scores = scores.masked_fill(torch.isneginf(self._logs), -torch.inf)
        rank = (scores >= scores.gather(1, self._items[:, None])).sum(dim=1).float()
        gain = torch.where((rank <= 10) & (self._items > 0), 1.0 / torch.log2(rank + 1.0), 0.0)
        return Mark(float(far), gain.numpy().astype(np.float64))


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
    parser.add_argument("--epochs", type=int, default=30, help="of a student (default: 30)")
    parser.add_argument("--seeds", type=int, default=None, help="students of each coding (default: 3; 1 with --short)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds of what is timed (default: 5)")
    parser.add_argument("--threads", type=int, default=2)
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
    write("store", sys.argv, settings={"epochs": asked.epochs, "seeds": seeds, "threads": asked.threads}, **found)


if __name__ == "__main__":
    main()
