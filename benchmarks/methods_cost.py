"""What distilling costs: a student's epoch with each method against the same student's epoch alone, and the memory.

MovieLens-1M, the student of ``quality.yaml`` (width 32, one block, length 200). The teacher is one of
``--teacher-epochs`` epochs: what it says does not matter here, how much it says does. Each training is a process of its
own, one after the other, in turn for ``--repeat`` rounds; its first epoch decodes the store and warms up and is left
out, and validation stands outside the clock. Shown are medians over rounds of the epoch, of its ratio to the student
alone *of the same round*, and of the most memory that the process held.

    .venv/bin/python benchmarks/methods_cost.py --repeat 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from _peers.arguments import at_least
from _peers.memory import peak_mib
from _peers.moviellens import default_file, prepared
from _peers.report import table, write
from quality import PLAN, Log, made, stage
from quality_plan import merged, settings

from stillhouse.data.files import read_json, write_json, write_none

#: Label → what stands under train_student.distillation; the first is what the others are held against.
CASES: dict[str, dict[str, Any]] = {
    "alone": {"alpha": 1.0},
    "soft": {"methods": [{"kind": "soft"}]},
    "soft, temperature 2": {"methods": [{"kind": "soft"}], "temperature": 2.0},
    "soft, standardised": {"methods": [{"kind": "soft", "standardise": True}]},
    "pseudo_labels": {"methods": [{"kind": "pseudo_labels"}]},
    "regression": {"methods": [{"kind": "regression"}]},
    "rank_sampling": {"methods": [{"kind": "rank_sampling"}]},
    "listwise": {"methods": [{"kind": "listwise"}]},
    "rejuvenated": {"methods": [{"kind": "rejuvenated"}]},
    "features": {"methods": [{"kind": "features"}]},
    "relations": {"methods": [{"kind": "relations"}]},
    "soft and trust where right": {"methods": [{"kind": "soft"}], "trust": "where_right"},
    "soft, alpha adaptive": {"methods": [{"kind": "soft"}], "alpha": {"kind": "adaptive", "sure": 0.1, "unsure": 0.5}},
}


def teach(work: Path, params: Mapping[str, Any], common: Mapping[str, Any]) -> Path:
    """Return the store of a teacher of few epochs, made in ``work`` once for its settings and its data."""
    store, told = work / "soft_targets", work / "taught.json"
    asked = {"params": dict(params), "data": read_json(common["sequences"] / "sequences.json")}
    if store.exists() and told.exists() and read_json(told) == asked:
        return store
    for made_before in (store, work / "resume", work / "resume-export"):
        shutil.rmtree(made_before, ignore_errors=True)
    write_none(work / "none")
    resume = work / "resume"
    resume.mkdir(exist_ok=True)
    begun = {"previous_teacher": work / "none", "teacher": made(work / "teacher"), "resume": resume}
    stage("train_teacher", params, **common, **begun, reporter=Log())
    (work / "checked.json").write_text('{"passed": true}', encoding="utf-8")
    given = {"teacher": work / "teacher", "checked": work / "checked.json", "soft_targets": store}
    again = work / "resume-export"
    again.mkdir(exist_ok=True)
    stage("export_soft_targets", params, **common, **given, resume=again, reporter=Log())
    write_json(told, asked)
    return store


def learn(work: Path, case: str, params: dict[str, Any], common: Mapping[str, Any]) -> dict[str, float]:
    """Train the student as ``case`` says, in this process; return what an epoch took and the peak of memory."""
    params = merged(params, {f"train_student.distillation.{name}": value for name, value in CASES[case].items()})
    log = Log()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "resume").mkdir()
        paths = {"soft_targets": work / "soft_targets", "previous_student": work / "none", "student": here / "student"}
        stage("train_student", params, **common, **paths, resume=here / "resume", reporter=log)
    epochs = [one["epoch_seconds"] for one in log.epochs]
    return {
        "first_epoch_seconds": epochs[0],
        "epoch_seconds": statistics.median(epochs[1:]),
        "peak_mib": peak_mib(),
    }


def main() -> None:
    """Time every method in turn, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_file(), help="interactions.parquet of MovieLens-1M")
    parser.add_argument("--work", type=Path, default=Path(__file__).with_name("work") / "methods_cost")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--epochs", type=at_least(2), default=3, help="of a student, the first left out (default: 3)")
    parser.add_argument("--teacher-epochs", type=at_least(1), default=2)
    parser.add_argument("--repeat", type=at_least(1), default=1, help="rounds (default: 1)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    params = merged(
        settings(plan, "w32"),
        {
            "train_teacher.training.epochs": asked.teacher_epochs,
            "train_student.training.epochs": asked.epochs,
            "train_student.training.valid_users": 200,
            "export_soft_targets.hidden": True,
        },
    )
    asked.work.mkdir(parents=True, exist_ok=True)
    prepared(asked.data, asked.work / "data")
    common = {"vocabulary": asked.work / "data" / "vocabulary", "sequences": asked.work / "data" / "sequences"}
    if asked.one:
        print(json.dumps(learn(asked.work, asked.one, params, common)))
        return
    teach(asked.work, params, common)
    found: dict[str, list[dict[str, float]]] = {case: [] for case in dict.fromkeys(["alone", *asked.cases])}
    for turn in range(asked.repeat):
        for case, answers in found.items():
            print(f"{case}, round {turn + 1} ...", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--work", str(asked.work), "--epochs", str(asked.epochs)]
            done = subprocess.run([*command, "--one", case], check=True, stdout=subprocess.PIPE, text=True)
            answers.append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for case, answers in found.items():
        pairs = zip(answers, found["alone"], strict=True)
        of_alone = statistics.median(mine["epoch_seconds"] / alone["epoch_seconds"] for mine, alone in pairs)
        middle = {name: statistics.median(one[name] for one in answers) for name in answers[0]}
        rows.append([case, f"{middle['epoch_seconds']:.1f}", f"{of_alone:.2f}", f"{middle['peak_mib']:,.0f}"])
    table(["a student, distilled by", "s an epoch", "of alone", "peak MiB"], rows)
    write("methods_cost", sys.argv, runs=found)


if __name__ == "__main__":
    main()
