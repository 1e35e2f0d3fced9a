"""A stage that is killed with SIGKILL at any moment resumes to the same bytes as an unbroken run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from stillhouse.data.files import write_none


def test_a_killed_teacher_ends_with_the_same_bytes(
    make_sequences: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    vocabulary, _ = make_sequences(
        [[(start * (1 + step % 3)) % 12 + 1 for step in range(5 + start % 6)] for start in range(60)],
        n_items=12,
        repeat_items=True,
    )
    night, out = vocabulary.parent, tmp_path / "out"
    write_none(night / "nothing")
    out.mkdir()
    script = Path(__file__).with_name("killed_training.py")
    done = subprocess.run([sys.executable, script, night, out], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kills, status = map(int, done.stdout.split())
    assert status == 0
    assert kills >= 3
    for name in ("model.safetensors", "model.json"):
        assert (out / "killed" / name).read_bytes() == (out / "whole" / name).read_bytes()
    assert not list(out.glob(".killed.*"))
