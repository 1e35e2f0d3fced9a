"""What distillation adds to a night: seconds by stage, teacher and export included, against the students trained alone.

Clones the checkout into a scratch folder and plays its first night on the built-in shop with `stillhouse run`, as a
user would; then the same night in a second clone, with `alpha: 1.0` and a fresh start, that has the first one's DVC
cache: stages that do not differ are taken from there. Seconds are those that each stage's own process measured
(``runs/*.json``: from the opening of its tracking run to its end). *Alone* is a night that had no teacher: without
train_teacher, check_teacher and export_soft_targets, its students on people's events only, everything else as it is.
Not in the sums: what DVC, Prefect and the gate take around the stages (*whole run*, by the clock).

    .venv/bin/python benchmarks/night_share.py
    .venv/bin/python benchmarks/night_share.py --size tiny

Prints a table and writes ``benchmarks/results/night_share.json``; of a size other than default,
``night_share_SIZE.json``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _peers.report import table, write

from stillhouse.data.files import read_json

ROOT = Path(__file__).parents[1]
#: Stages that a night without a teacher does not have.
TEACHING = ("train_teacher", "check_teacher", "export_soft_targets")
#: Whose seconds differ when a student trains alone.
STUDENTS = ("train_student", "package", "evaluate")
ALONE = {"train_student.distillation.alpha": 1.0, "train_student.distillation.start": "fresh"}
#: For trying: a shop of 120 users fills no floor, and its models are small.
TINY: dict[str, Any] = {
    "train_teacher.training.epochs": 3,
    "train_student.training.epochs": 3,
    "students": {
        "small": {"model": {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 50, "dropout": 0.0}}
    },
    "validate.min_rows": 100,
    "prepare.min_user_events": 2,
    "prepare.min_item_events": 2,
    "check_teacher.min_over_popularity": 0.0,
    "check_teacher.min_coverage": 0.0,
    "gate.min_users": 5,
    "gate.min_over_popularity": 0.0,
    "gate.min_ndcg_at_10": 0.0,
    "gate.max_p99_ms": 1000.0,
}


def play(folder: Path, settings: dict[str, Any], cache: Path | None = None) -> tuple[dict[str, float], float]:
    """Play a first night in ``folder``, a new clone; return stage → seconds, and those of the whole command.

    Args:
        folder: made here.
        settings: dotted names in ``params.yaml`` → what stands there instead.
        cache: a DVC cache to begin with.

    Raises:
        RuntimeError: the night failed.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    if cache is not None:
        shutil.copytree(cache, folder / ".dvc" / "cache")
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for dotted, value in settings.items():
        *parents, last = dotted.split(".")
        section = document
        for key in parents:
            section = section[key]
        section[last] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}
    started = time.perf_counter()
    command = [str(Path(sys.executable).parent / "stillhouse"), "run"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the night must succeed, found exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return stages(folder), seconds


def stages(folder: Path) -> dict[str, float]:
    """Return stage (with ``@STUDENT``) → the seconds that its ``runs/*.json`` notes, in the graph's order."""
    graph = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    students = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))["students"]
    found = {}
    for name, stage in graph.items():
        for key in students if "foreach" in stage else [""]:
            outs = [str(next(iter(out)) if isinstance(out, dict) else out) for out in stage.get("do", stage)["outs"]]
            note = next(out for out in outs if out.startswith("runs/")).replace("${key}", key)
            found[f"{name}@{key}" if key else name] = float(read_json(folder / note)["seconds"])
    return found


def sums(taught: dict[str, float], alone: dict[str, float]) -> dict[str, float]:
    """Return what the night's seconds go to, and how many times a night without a teacher it is."""

    def of(found: dict[str, float], *names: str) -> float:
        return sum(seconds for stage, seconds in found.items() if stage.partition("@")[0] in names)

    whole = sum(taught.values())
    without = sum(alone.values()) - of(alone, *TEACHING)
    return {
        "taught_seconds": whole,
        "alone_seconds": without,
        "teaching_seconds": of(taught, *TEACHING),
        "teaching_share": of(taught, *TEACHING) / whole,
        "student_training_taught": of(taught, "train_student"),
        "student_training_alone": of(alone, "train_student"),
        "taught_over_alone": whole / without,
        "teacher_and_students_over_students_alone": (of(taught, *TEACHING) + of(taught, "train_student"))
        / of(alone, "train_student"),
    }


def main() -> None:
    """Play both nights; print the table; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="default", choices=["tiny", "default", "large", "huge"], help="of the shop")
    size = parser.parse_args().size
    settings: dict[str, Any] = {"source.shop.size": size, **(TINY if size == "tiny" else {})}
    load = [round(os.getloadavg()[0], 1)]
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "taught", Path(name) / "alone"
        taught, whole = play(first, settings)
        load.append(round(os.getloadavg()[0], 1))
        alone, _ = play(second, settings | ALONE, first / ".dvc" / "cache")
        again = [stage for stage in taught if stage.partition("@")[0] not in STUDENTS and taught[stage] != alone[stage]]
    load.append(round(os.getloadavg()[0], 1))
    if again:
        print(f"not taken from the cache, so timed twice: {', '.join(again)}", file=sys.stderr)
    found = sums(taught, alone)
    rows = [
        [stage, f"{seconds:.1f}", f"{seconds / found['taught_seconds']:.0%}", _alone(stage, alone)]
        for stage, seconds in taught.items()
    ]
    rows.append(["all stages", f"{found['taught_seconds']:.1f}", "100%", f"{found['alone_seconds']:.1f}"])
    rows.append(["whole run", f"{whole:.1f}", "", ""])
    table(["stage", "taught s", "share", "alone s"], rows)
    print(
        f"teacher, its check and the export: {found['teaching_share']:.0%} of the stages' seconds; the night is "
        f"{found['taught_over_alone']:.2f} times one without a teacher; teacher and students are "
        f"{found['teacher_and_students_over_students_alone']:.2f} times the students alone"
    )
    name = "night_share" if size == "default" else f"night_share_{size}"
    write(name, sys.argv, size=size, loads=load, taught=taught, alone=alone, whole_run=whole, **found)


def _alone(stage: str, alone: dict[str, float]) -> str:
    return "–" if stage.partition("@")[0] in TEACHING else f"{alone[stage]:.1f}"


if __name__ == "__main__":
    main()
