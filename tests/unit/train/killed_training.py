"""Trains a teacher in children that are killed at random moments until one gets to its end (not a test).

``python killed_training.py NIGHT OUT``: OUT/whole holds the unbroken run's checkpoint, OUT/killed that of the
run that was killed; prints how often. Children are forked from a process that has done no arithmetic.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import lightning_fabric  # noqa: F401  (else each child loads it anew, and is killed while it does)

from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.train_teacher import train_teacher
from stillhouse.train import loop

PARAMS = TrainTeacherParams(
    model=TransformerSpec(kind="transformer", width=16, blocks=1, heads=2, length=6, dropout=0.2),
    training=TrainingSpec(epochs=12, batch_size=4, learning_rate=0.01, warmup_steps=2, patience=12, average=1.5),
    seed=1,
    repeat_items=True,
    compute=ComputeSpec(device="cpu", threads=1),
)


def child(night: Path, out: Path, resume: Path) -> int:
    """Fork a child that runs the stage; return its process id."""
    pid = os.fork()
    if pid == 0:
        train_teacher(
            vocabulary=night / "vocabulary",
            sequences=night / "sequences",
            previous_teacher=night / "nothing",
            teacher=out,
            resume=resume,
            params=PARAMS,
            reporter=SilentReporter(),
        )
        os._exit(0)
    return pid


def main(night: Path, out: Path) -> None:
    """Run once unbroken, then under fire."""
    loop._SAVE_EVERY = 0.01
    for name in ("resume_whole", "resume_killed"):
        (out / name).mkdir()
    started = time.monotonic()
    assert os.waitpid(child(night, out / "whole", out / "resume_whole"), 0)[1] == 0
    whole = time.monotonic() - started
    chance, kills = random.Random(7), 0
    while True:
        pid = child(night, out / "killed", out / "resume_killed")
        # The more it was killed already, the longer it may live: it does get to its end.
        time.sleep(chance.uniform(0.0, 0.5) * whole * (1.0 + kills / 8))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            print(kills, os.WEXITSTATUS(status))
            return
        kills += 1
        (out / "resume_killed" / f".training.safetensors.{kills}.tmp").write_bytes(b"half of a state")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
