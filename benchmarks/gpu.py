"""A teacher on this machine's accelerator: sequences a second, the share of its matrix rate, how often a step waits.

MovieLens-1M, a teacher like that of ``quality.yaml``: two blocks of ``--width`` with rotary positions, windows of 200
events, softmax over what was not seen. The product's loop in bf16 and in float32 stands beside a plain eager loop in
float32: the same model and batches, the table of all scores at once, cross-entropy over all items, AdamW. Medians over
epochs, the first left out.

The *matrix rate* is that of a large square product in the same type, measured here. *Share* is what the model's own
matrix products (counted by torch's flop counter, backwards and padding included) come to of that rate. *Waits* are
synchronising calls a step of the loop, as torch reports them; on a CPU there is nothing to wait for.

    .venv/bin/python benchmarks/gpu.py
    .venv/bin/python benchmarks/gpu.py --width 256 --batch 256
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from _peers.arguments import at_least
from _peers.moviellens import default_file, prepared
from _peers.report import table, write
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.data.sequences import Sequences
from stillhouse.distill.hard import HardObjective
from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train import loop
from stillhouse.train.compute import device_of
from stillhouse.train.job import Job
from stillhouse.train.rows import TrainingRows

#: Side of the square product that the matrix rate is measured with.
_SIDE = {"cuda": 8192, "cpu": 2048}
#: Batches whose products are counted.
_COUNTED = 4


@dataclass
class _Clock(SilentReporter):
    """Keeps what epochs took."""

    seconds: list[float] = field(default_factory=list)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note an epoch."""
        self.seconds.append(values["epoch_seconds"])


@dataclass(frozen=True)
class Course:
    """What is trained."""

    events: Sequences
    spec: TransformerSpec
    compute: ComputeSpec
    batch: int
    epochs: int

    @property
    def device(self) -> torch.device:
        """Where."""
        return device_of(self.compute)

    def rows(self) -> TrainingRows:
        """Return its windows."""
        return TrainingRows(self.events, self.spec.length)

    def model(self) -> SequenceModel:
        """Return fresh weights."""
        return build(self.spec, self.events.n_items, seed=1)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations a second of a large square product, the best of ten."""
    side = _SIDE[device.type]
    one = torch.randn(side, side, device=device).to(dtype)
    best = 0.0
    for _ in range(10):
        _finished(device)
        began = time.perf_counter()
        one @ one
        _finished(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def ours(course: Course, precision: str, folder: Path) -> tuple[float, float | None]:
    """Return the seconds of an epoch of the product's loop, and how often a step waits for a GPU."""
    clock = _Clock()
    training = TrainingSpec(epochs=course.epochs, batch_size=course.batch, valid_users=200, patience=course.epochs)
    job = Job(
        objective=HardObjective(histories=course.events),
        sequences=course.events,
        training=training,
        compute=course.compute.model_copy(update={"precision": precision}),
        seed=1,
        warm=False,
        resume=folder,
        where="train_teacher.training",
    )
    with _waits(course.device) as waited:
        loop.train(course.model(), job, clock)
    steps = course.epochs * -(-len(course.rows()) // course.batch)
    return statistics.median(clock.seconds[1:]), None if waited is None else len(waited) / steps


def plain(course: Course) -> float:
    """Return the seconds of an epoch of a plain loop in float32, everything at once."""
    rows, model = course.rows(), course.model().to(course.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seconds = []
    for epoch in range(course.epochs):
        began = time.perf_counter()
        for batch in rows.plan(1, epoch, course.batch):
            histories, positions = rows.batch(batch)
            optimizer.zero_grad()
            _loss(model, histories.to(course.device), positions.targets.to(course.device)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        _finished(course.device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def operations(course: Course) -> float:
    """Return the operations of the matrix products of a training position, there and back."""
    rows, model = course.rows(), course.model().to(course.device).train()
    positions = 0
    # Written out: torch counts attention's own kernels on a GPU, and not on a processor.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for batch in rows.plan(1, 0, course.batch)[:_COUNTED]:
            histories, found = rows.batch(batch)
            _loss(model, histories.to(course.device), found.targets.to(course.device)).backward()
            positions += len(found)
    return float(counter.get_total_flops() / positions)


def _loss(model: SequenceModel, histories: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model.scores(model.position_hidden(histories)), targets)


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _waits(device: torch.device) -> Iterator[list[str] | None]:
    """Give a list that fills with what synchronises with a GPU in a step of the loop; ``None`` where there is none.

    Steps alone: what looks at an epoch's quality or saves its state may wait.
    """
    if device.type != "cuda":
        yield None
        return
    found: list[str] = []
    step = loop._Run._step

    def watched(run: loop._Run, *given: Any) -> None:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step(run, *given)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found.extend(str(one.message) for one in heard if "synchroniz" in str(one.message))

    with patch.object(loop._Run, "_step", watched):
        yield found


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_file(), help="interactions.parquet of MovieLens-1M")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--width", type=at_least(4), default=64)
    parser.add_argument("--batch", type=at_least(1), default=64, help="sequences a step (default: 64)")
    parser.add_argument("--epochs", type=at_least(2), default=4, help="the first is left out (default: 4)")
    parser.add_argument("--threads", type=at_least(1), default=2, help="of a CPU")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    compute = ComputeSpec(device=asked.device, precision="32-true", threads=asked.threads)
    spec = TransformerSpec(
        kind="transformer", width=asked.width, blocks=2, heads=2, length=200, dropout=0.2, positions="rotary"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        course = Course(Sequences.open(prepared(asked.data, work / "data")), spec, compute, asked.batch, asked.epochs)
        name = torch.cuda.get_device_name(course.device) if course.device.type == "cuda" else "this processor"
        each = operations(course)
        positions, sequences = int(course.rows().counts.sum()), len(course.rows())
        rates = {kind: matrix_rate(course.device, kind) for kind in (torch.bfloat16, torch.float32)}
        contenders: dict[str, tuple[torch.dtype, Callable[[], tuple[float, float | None]]]] = {
            "ours, bf16": (torch.bfloat16, lambda: ours(course, "bf16-mixed", _made(work / "bf16"))),
            "ours, float32": (torch.float32, lambda: ours(course, "32-true", _made(work / "float32"))),
            "plain eager, float32": (torch.float32, lambda: (plain(course), None)),
        }
        rows, found, taken = [], {}, {}
        for label, (kind, run) in contenders.items():
            print(f"{label} ...", file=sys.stderr, flush=True)
            taken[label], waited = run()
            found[label] = {
                "epoch_seconds": taken[label],
                "sequences_per_second": sequences / taken[label],
                "share_of_matrix_rate": each * positions / taken[label] / rates[kind],
                "waits_a_step": waited,
            }
        for label, one in found.items():
            waits = one["waits_a_step"]
            rows.append(
                [
                    label,
                    f"{taken[label]:.2f}",
                    f"{one['sequences_per_second']:,.0f}",
                    f"{one['share_of_matrix_rate']:.1%}",
                    f"{taken['plain eager, float32'] / taken[label]:.2f}",
                    "–" if waits is None else f"{waits:.2f}",
                ]
            )
    table(["", "s an epoch", "sequences/s", "of the matrix rate", "× plain", "waits a step"], rows)
    shown = ", ".join(f"{str(kind).removeprefix('torch.')} {rate / 1e12:.2f} TFLOP/s" for kind, rate in rates.items())
    print(f"{name}; products at {shown}; {each / 1e6:.2f} MFLOP a position, {positions / sequences:.1f} a sequence")
    rated = {str(kind).removeprefix("torch."): rate for kind, rate in rates.items()}
    sizes = {"width": asked.width, "batch": asked.batch, "flop_a_position": each}
    write("gpu", sys.argv, accelerator=name, matrix_rates=rated, **sizes, contenders=found)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
