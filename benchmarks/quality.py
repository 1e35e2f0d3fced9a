"""Quality on MovieLens-1M: teachers, students and methods, each trained by the product's own stages.

``quality.yaml`` names the runs: what each changes in ``params.yaml``, and which teacher a student learns from.
Every run is a process of its own and leaves a folder; one that is there is not made again, so that a table can be
filled over days, unless its settings or its teacher changed since. What a run takes from another is made first.
Leave-one-out, full ranking, seen items filtered; a student is ranked as it is served, by its package ("valid" is its
checkpoint's). Figures are medians over seeds, a teacher's means with their standard deviation. *Alone* is the same
student on people's events only, with the same steps; *gap* is the share of the way from there to its teacher, its
interval a bootstrap over users and seeds; *bound* is the lower 95 % bound of the student's NDCG@10 over its teacher's,
over users and seeds likewise. *Share* is the bytes of weights as served over the teacher's as it is (float32), *equal*
over the teacher's in the student's own precision.

    .venv/bin/python benchmarks/quality.py --only 'teacher*' --seeds 3
    .venv/bin/python benchmarks/quality.py --only 'w32*' --seeds 2 --jobs 2
    .venv/bin/python benchmarks/quality.py --report
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from _peers.arguments import at_least
from _peers.memory import peak_mib
from _peers.moviellens import default_file, prepared
from quality_plan import (
    Plan,
    Run,
    adopt,
    digest,
    folder_of,
    merged,
    phases,
    selected,
    settings,
    sources,
    state,
    store_key,
    there,
)
from quality_table import gains, report

from stillhouse.data.files import read_json, write_json, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.models.checkpoint import load
from stillhouse.params.base import build, stage_values
from stillhouse.params.document import STAGE_PARAMS
from stillhouse.runner.stage import load_stage
from stillhouse.train.validation import ValidationSet

PLAN = Path(__file__).with_name("quality.yaml")


class Log:
    """A reporter that writes each epoch as a line and adds up what epochs took."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def note(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Print an epoch, and keep it."""
        self.epochs.append(dict(values))
        print(f"epoch {step + 1}", json.dumps({name: round(value, 4) for name, value in values.items()}), flush=True)

    def progress(self, label: str, total: int) -> Any:
        """Show nothing."""
        from stillhouse.reporting import SilentReporter

        return SilentReporter().progress(label, total)


def stage(name: str, params: Mapping[str, Any], **paths: Any) -> Mapping[str, Any]:
    """Run one stage's function on ``paths`` with its settings of ``params``."""
    function, _ = load_stage(name)
    model = STAGE_PARAMS[name]
    values = stage_values(model, params, {}, "student" if model.instances else None)
    return function(**paths, params=build(model, values, name))


def made(folder: Path) -> Path:
    """Return ``folder``, gone and to be made anew by a stage; its parent stands."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def ranks_of(teacher: Path, sequences: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the leave-one-out ranks of the test and the validation targets, each int64 [n] in user order."""
    events = Sequences.open(sequences)
    model, _ = load(teacher)
    found = []
    for split in ("test", "valid"):
        targets = np.asarray(events.targets(split))
        held = ValidationSet(events, model.length, split=split)
        order = np.argsort(np.minimum(targets[:, 1], model.length), kind="stable")
        back = np.empty(len(order), np.int64)
        back[order] = held.ranks(model).numpy()
        found.append(back)
    return found[0], found[1]


def train_one(plan: Plan, name: str, seed: int, work: Path) -> None:
    """Make the run ``name`` with ``seed`` in ``work``/runs: in this process, which is its own."""
    run, folder, made_of = plan["runs"][name], folder_of(work, (name, seed)), digest(plan, (name, seed), work)
    _begin(folder, made_of)
    params = merged(settings(plan, name), {"seed": seed})
    data = work / "data"
    common: dict[str, Any] = {"vocabulary": data / "vocabulary", "sequences": data / "sequences"}
    write_none(folder / "none")
    log, began = Log(), time.monotonic()
    resume = folder / "resume"
    resume.mkdir(exist_ok=True)
    if run["role"] == "teacher":
        take_members(run.get("taken", {}), work, resume)
        figures = _teacher(params, folder, common, log, resume)
    else:
        teacher = work / "runs" / f"{run.get('taught_by', run['teacher'])}.1"
        store = None
        if "student_of" in run:
            shutil.copytree(work / "runs" / f"{run['student_of']}.{seed}" / "student", made(folder / "student"))
        else:
            store = _store(params, teacher, common)
        before = folder_of(work, (run["continues"], seed)) / "student" if "continues" in run else folder / "none"
        figures = _student(params, folder, common, log, resume, store, before, run)
    epochs = [each["epoch_seconds"] for each in log.epochs if "epoch_seconds" in each]  # not those before a kill
    figures |= {
        "seconds": time.monotonic() - began,
        "epoch_seconds": float(np.median(epochs)) if epochs else None,
        "epochs": len(log.epochs),
        "peak_mb": peak_mib(),
        "role": run["role"],
        "seed": seed,
        "digest": made_of,
    }
    write_json(folder / "result.json", figures)
    shutil.rmtree(resume, ignore_errors=True)
    print(json.dumps(figures), flush=True)


def _begin(folder: Path, made_of: str | None) -> None:
    """Make ``folder``, empty but for what a killed attempt at the same run left in it."""
    begun, result = folder / "begun.json", folder / "result.json"
    if result.exists() or (begun.exists() and read_json(begun)["digest"] != made_of):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(begun, {"digest": made_of})


def take_members(members: Mapping[str, str], work: Path, resume: Path) -> None:
    """Lay finished runs where an ensemble looks for what an earlier attempt finished of its members."""
    for name, run in members.items():
        home, made_before = resume / name, work / "runs" / run
        if not (home / "finished").exists():
            home.mkdir(exist_ok=True)
            figures = read_json(made_before / "result.json")
            said = {
                "start": "cold",
                "valid_ndcg_at_10": figures["valid_ndcg_at_10"],
                "best_epoch": figures["best_epoch"],
            }
            write_json(home / "figures.json", said)
            shutil.copytree(made_before / "teacher", home / "finished")


def _teacher(params: dict[str, Any], folder: Path, common: dict[str, Any], log: Log, resume: Path) -> dict[str, Any]:
    trained = stage(
        "train_teacher",
        params,
        **common,
        previous_teacher=folder / "none",
        teacher=made(folder / "teacher"),
        resume=resume,
        reporter=log,
    )
    checked = stage(
        "check_teacher",
        params,
        **common,
        teacher=folder / "teacher",
        previous_teacher=folder / "none",
        checked=folder / "checked.json",
        timings=folder / "timings.json",
        reporter=log,
    )
    test, valid = ranks_of(folder / "teacher", common["sequences"])
    np.savez(folder / "ranks.npz", test=test, valid=valid)
    extra = {name: checked[name] for name in ("train_ndcg_at_10", "train_over_valid") if name in checked}
    size = sum(file.stat().st_size for file in (folder / "teacher").rglob("*.safetensors"))
    return {**_quality(test, valid), "best_epoch": trained.get("best_epoch"), "weight_bytes": size, **extra}


def _student(
    params: dict[str, Any],
    folder: Path,
    common: dict[str, Any],
    log: Log,
    resume: Path,
    store: Path | None,
    before: Path,
    run: Any,
) -> dict[str, Any]:
    student, package, evaluation = folder / "student", folder / "package", folder / "evaluation"
    best_epoch = None
    if store is not None:
        paths = {"soft_targets": store, "previous_student": before, "student": made(student), "resume": resume}
        best_epoch = stage("train_student", params, **common, **paths, reporter=log)["best_epoch"]
    packed = stage("package", params, **common, student=student, package=made(package), reporter=log)
    stage(
        "evaluate",
        params,
        **common,
        package=package,
        evaluation=made(evaluation),
        timings=folder / "timings.json",
        reporter=log,
    )
    ranks = pq.read_table(evaluation / "ranks.parquet").sort_by("user_index")
    test, (_, valid) = ranks["rank"].to_numpy(), ranks_of(student, common["sequences"])
    np.savez(folder / "ranks.npz", test=test, valid=valid)
    names = ("bytes", "weight_bytes", "bytes_per_item", "parameters", "parameters_without_embeddings", "flops")
    return {
        **_quality(test, valid),
        "best_epoch": best_epoch,
        **{name: packed[name] for name in names},
        "p50_ms": read_json(folder / "timings.json").get("p50_ms"),
        "track": run.get("track"),
    }


def _quality(test: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    return {
        "ndcg_at_10": float(gains(test).mean()),
        "hr_at_10": float((test <= 10).mean()),
        "valid_ndcg_at_10": float(gains(valid).mean()),
    }


def _store(params: dict[str, Any], teacher: Path, common: dict[str, Any]) -> Path:
    """Return the soft targets of ``teacher``, exported with the settings of the student's run, once."""
    key = store_key(params, teacher / "teacher")
    store = teacher / key
    with (teacher / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two students may ask at once
        _export(merged(params, {"seed": 1}), teacher, common, store, key)  # whoever asks first
    return store


def _export(params: dict[str, Any], teacher: Path, common: dict[str, Any], store: Path, key: str) -> None:
    """Make ``store`` unless it stands; ``key`` names where a killed export left its shards."""
    if not store.exists():
        resume = teacher / f"{key}.resume"
        resume.mkdir(exist_ok=True)
        stage(
            "export_soft_targets",
            params,
            **common,
            teacher=teacher / "teacher",
            checked=teacher / "checked.json",
            soft_targets=store,
            resume=resume,
            reporter=Log(),
        )
        shutil.rmtree(resume, ignore_errors=True)


def due(plan: Plan, one: Run, work: Path) -> bool:
    """Say whether ``one`` is to be made, and why where that is not plain."""
    name, seed = one
    found = state(plan, one, work)
    lacking = [source for source in sources(plan, one) if state(plan, source, work) != "done"]
    if found == "done":
        return False
    if lacking:
        said = ", ".join(f"{source}.{number}" for source, number in lacking)
        print(f"== {name}, seed {seed}: skipped, it takes {said}, which is not there or no longer fits", flush=True)
        return False
    if found == "stale":
        print(f"== {name}, seed {seed}: made again, its settings or what it takes changed since", flush=True)
    return True


def make(work: Path, options: list[str], one: Run) -> None:
    """Make a run with a seed, in a process of its own that gets ``options``."""
    name, seed = one
    print(f"== {name}, seed {seed}", flush=True)
    log = work / f"{name}.{seed}.log"
    command = [sys.executable, __file__, "--work", str(work), *options, "--one", name, str(seed)]
    with log.open("w") as out:
        if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
            print(f"   failed: see {log}", flush=True)


def main() -> None:
    """Make what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_file(), help="interactions.parquet of MovieLens-1M")
    parser.add_argument(
        "--work", type=Path, default=Path(__file__).with_name("work") / "quality", help="runs are kept here"
    )
    parser.add_argument("--only", default="*", help="which runs (a pattern)")
    parser.add_argument("--seeds", type=at_least(1), default=1, help="seeds of each run: 1, 2, ... (default: 1)")
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, help="runs at once, which share the threads (default: 1)"
    )
    parser.add_argument("--precision", help="in place of the plan's: bf16 is slow where the processor has none of it")
    parser.add_argument("--report", action="store_true", help="make nothing, print what is there")
    parser.add_argument("--one", nargs=2, metavar=("RUN", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        compute = plan["common"]["compute"]
        compute["threads"] = max(1, compute["threads"] // arguments.jobs)
        compute["precision"] = arguments.precision or compute["precision"]
        train_one(plan, arguments.one[0], int(arguments.one[1]), arguments.work)
        return
    wanted = selected(plan, arguments.only, arguments.seeds)
    if not wanted:
        parser.error(f"--only must fit a run of {PLAN.name}, got {arguments.only!r}")
    if not arguments.report:
        prepared(arguments.data, arguments.work / "data")
        adopt(plan, arguments.work)
        options = ["--jobs", str(arguments.jobs)]
        if arguments.precision:
            options += ["--precision", arguments.precision]
        for phase in phases(plan, wanted):
            with ThreadPoolExecutor(arguments.jobs) as pool:
                some = [one for one in phase if due(plan, one, arguments.work)]
                list(pool.map(partial(make, arguments.work, options), some))
    names = {name for name, _ in wanted}
    made_before = [one for one in there(plan, arguments.work) if one[0] in names]
    if not made_before:
        raise SystemExit(f"a report must have a finished run, found none of {arguments.only!r} in {arguments.work}")
    stale = {one for one in made_before if state(plan, one, arguments.work) == "stale"}
    for name, seed in sorted(stale):
        print(f"{name}, seed {seed} is of other settings, or of another teacher, than quality.yaml says: marked *")
    report(plan, arguments.work, names, {name for name, _ in stale})


if __name__ == "__main__":
    main()
