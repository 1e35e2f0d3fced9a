"""What a stage costs whatever it does: from its process's start to its first useful work, and from there to its end.

Runs `stillhouse stage NAME`, as a night's flow does, for every stage of ``dvc.yaml``, in the graph's order, in a
workspace so small that the work itself is next to nothing. *Start* is from the moment at which the process is asked
for to the call of the stage's function: Python, imports, settings. *End* is from the function's return until the
process is gone: what it leaves for its tracking run, which the flow delivers, and Python's own tidying. Libraries that
a stage loads within its function (Great Expectations in validate) are its work, not its fixed cost.

Seconds on a busy machine are mostly waiting: processor seconds stand beside them. Prints a table and writes
``benchmarks/results/stage_cost.json``.

    .venv/bin/python benchmarks/stage_cost.py --repeat 5
    .venv/bin/python benchmarks/stage_cost.py --short
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from _peers.arguments import at_least
from _peers.report import table, write

from stillhouse.runner.lifeline import NIGHT_PID

ROOT = Path(__file__).parents[1]
#: Most seconds of fixed cost, without torch in the process and with.
LIMITS = {False: 2.0, True: 4.0}
#: What any stage must load, timed alone: the part of the fixed cost that is not ours.
FLOORS = {
    "python": "pass",
    "mlflow and its SQL store (not loaded under a flow)": "import mlflow, mlflow.store.tracking.sqlalchemy_store",
    "torch": "import torch",
}

#: Python runs it at its start: it notes the time when the stage's function is entered and left.
_MARKS = """
import functools, importlib.util, json, os, sys, time

class Finder:
    def find_spec(self, name, path, target=None):
        if name != os.environ["MARKED_MODULE"]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            stage = name.rpartition(".")[2]
            setattr(module, stage, marked(getattr(module, stage)))

        spec.loader.exec_module = exec_module
        return spec

def marked(function):
    @functools.wraps(function)
    def call(**arguments):
        marks = {"torch": "torch" in sys.modules, "entered": time.time(), "entered_cpu": time.process_time()}
        try:
            return function(**arguments)
        finally:
            marks |= {"left": time.time(), "left_cpu": time.process_time()}
            with open(os.environ["MARKED_FILE"], "w") as file:
                json.dump(marks, file)
    return call

sys.meta_path.insert(0, Finder())
"""

_SETTINGS: dict[str, Any] = {
    "source.shop.size": "tiny",
    "validate.min_rows": 100,
    "prepare.min_user_events": 2,
    "prepare.min_item_events": 2,
    "train_teacher.model": {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.0},
    "train_teacher.training.epochs": 1,
    "train_student.training.epochs": 1,
    "students": {"small": {"model": {"kind": "gru", "width": 8, "blocks": 1, "length": 20, "dropout": 0.0}}},
    "check_teacher.min_over_popularity": 0.0,
    "check_teacher.min_coverage": 0.0,
    "evaluate.latency_requests": 20,
}


def commands(graph: dict[str, Any], students: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Give stage → the arguments of ``stillhouse``, in the graph's order."""
    for name, stage in graph["stages"].items():
        for key in students if "foreach" in stage else [""]:
            words = shlex.split(stage.get("do", stage)["cmd"].replace("${key}", key))
            yield f"{name}@{key}" if key else name, words[1:]


def make_workspace(folder: Path) -> list[tuple[str, list[str]]]:
    """Fill ``folder`` with settings, a night and nothing from a night before; return what to run."""
    from stillhouse.data.files import write_none
    from stillhouse.data.shop import first_as_of
    from stillhouse.data.sources import fingerprint
    from stillhouse.params.source import SourceSpec

    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for dotted, value in _SETTINGS.items():
        *parents, last = dotted.split(".")
        section = document
        for key in parents:
            section = section[key]
        section[last] = value
    source = SourceSpec(**document["source"])
    as_of = first_as_of(source.shop)
    night = {"as_of": as_of.isoformat(), "source": document["source"], "fingerprint": fingerprint(source, as_of)}
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (folder / "night.yaml").write_text(yaml.safe_dump(night), encoding="utf-8")
    students = list(_SETTINGS["students"])
    nothing = ("profile", "vocabulary", "teacher", "soft_targets", "champion", "reference")
    for name in (*nothing, *(f"students/{student}" for student in students)):
        write_none(folder / "previous" / name)
    (folder / "marks").mkdir()
    (folder / "marks" / "sitecustomize.py").write_text(_MARKS, encoding="utf-8")
    return list(commands(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8")), students))


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    """Run ``command`` and return when it was started and when it had ended, in seconds since 1970, and its CPU seconds.

    Raises:
        RuntimeError: it failed.
    """
    with (folder / "said.txt").open("w+") as said:
        started = time.time()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        ended = time.time()
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} must succeed, found status {status}:\n{said.read()}")
    return started, ended, used.ru_utime + used.ru_stime


def once(folder: Path, stages: list[tuple[str, list[str]]]) -> dict[str, dict[str, float]]:
    """Run every stage in ``folder`` and return stage → its fixed cost."""
    found: dict[str, dict[str, float]] = {}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "marks"), str(ROOT / "src"), str(ROOT)]),
        "MARKED_FILE": str(folder / "marks.json"),
        # As under a flow, which opens the run, delivers what the stage leaves, and removes what stood there before.
        "STILLHOUSE_STAGE_RUN": "benchmark",
        NIGHT_PID: str(os.getpid()),
    }
    for stage, arguments in stages:
        environment["MARKED_MODULE"] = f"stillhouse.stages.{stage.partition('@')[0]}"
        started, ended, cpu = timed([str(Path(sys.executable).parent / "stillhouse"), *arguments], folder, environment)
        marks = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
        found[stage] = {
            "start": marks["entered"] - started,
            "work": marks["left"] - marks["entered"],
            "end": ended - marks["left"],
            "fixed": marks["entered"] - started + ended - marks["left"],
            "fixed_cpu": cpu - (marks["left_cpu"] - marks["entered_cpu"]),
            "torch": marks["torch"],
        }
    return found


def main() -> None:
    """Time every stage several times; print medians; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=at_least(1), default=5, help="rounds over all stages (default: 5)")
    parser.add_argument("--short", action="store_true", help="one round")
    given = parser.parse_args()
    repeat = 1 if given.short else given.repeat
    rounds, floors, load = [], [], [round(os.getloadavg()[0], 1)]
    for number in range(repeat):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stages = make_workspace(folder)
            rounds.append(once(folder, stages))
            floors.append({what: _alone(code, folder) for what, code in FLOORS.items()})
        load.append(round(os.getloadavg()[0], 1))
        print(f"round {number + 1} of {repeat}: load {load[-1]}", file=sys.stderr)
    report("stage_cost_short" if given.short else "stage_cost", rounds, floors, load)


def _alone(code: str, folder: Path) -> dict[str, float]:
    started, ended, cpu = timed([sys.executable, "-c", code], folder, dict(os.environ))
    return {"fixed": ended - started, "fixed_cpu": cpu}


def report(
    name: str, rounds: list[dict[str, dict[str, float]]], floors: list[dict[str, dict[str, float]]], load: list[float]
) -> None:
    """Print the medians and the best; write JSON under ``name``."""
    stages = {stage: _middle([one[stage] for one in rounds]) for stage in rounds[0]}
    alone = {what: _middle([one[what] for one in floors]) for what in FLOORS}
    head = ["stage", "start s", "end s", "fixed s", "best", "cpu s", "cpu best", "limit", "work s"]
    rows = [[stage, *_cells(of), f"{LIMITS[of['torch']]:.0f}", f"{of['work']:.2f}"] for stage, of in stages.items()]
    rows += [[f"({what})", *_cells({"start": None, "end": None, **of}), "", ""] for what, of in alone.items()]
    table(head, rows)
    over = [stage for stage, of in stages.items() if of["fixed"] > LIMITS[of["torch"]]]
    print(f"over the limit: {', '.join(over) or 'none'}")
    limits = {"without torch": LIMITS[False], "with torch": LIMITS[True]}
    write(name, sys.argv, rounds=len(rounds), load=load, limits=limits, stages=stages, alone=alone)


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "torch"}
    best = {f"best_{key}": min(run[key] for run in runs) for key in ("fixed", "fixed_cpu")}
    return {**middle, **best, **({"torch": runs[0]["torch"]} if "torch" in runs[0] else {}), "runs": runs}


def _cells(of: dict[str, Any]) -> list[str]:
    keys = ("start", "end", "fixed", "best_fixed", "fixed_cpu", "best_fixed_cpu")
    return ["" if of[key] is None else f"{of[key]:.2f}" for key in keys]


if __name__ == "__main__":
    main()
