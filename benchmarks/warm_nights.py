"""What a warm night costs and what it loses: every night cold, against every night warm, against warm with cold ones.

Plays several nights of one source. Ingest, validate, admit and prepare run once a night (they are the same for every
line, and counted in each); then each *line* trains its teacher, checks it, exports its soft targets, and trains,
packages and evaluates each student:

    cold      from nothing, every night
    warm      from its own models of the night before
    cold/N    as warm, but cold every N nights

In the clock is everything that `stillhouse run` performs as stages, except `evaluate_champion`: stage functions,
called in one process, one after the other. Not in it: starting processes, DVC, Prefect, MLflow, the gate, and the
scoring of the teacher's time window, which only this program wants ranks of. Seconds are wall-clock; CPU seconds stand
beside them, because machines are shared. Nights that two lines start alike are played once. Where cold nights are too
dear, ``--compare-every N`` plays them on every N-th night alone, and on the others nothing is held against them.

Quality is NDCG@10 on the time window: what happened after last night's `as_of`, which no model of any line has seen.
Warm is held against cold on the same users by the paired bootstrap that the gate uses; *bound* is the one-sided 95 %
lower bound of the difference as a share of cold's mean, one night at a time and over all nights (a user counted once).

    .venv/bin/python benchmarks/warm_nights.py shop --size large --nights 10 --cold-every 5 --compare-every 2
    .venv/bin/python benchmarks/warm_nights.py yelp --cold-every 3 --shared ../shared
    .venv/bin/python benchmarks/warm_nights.py --short

Prints a table and writes ``benchmarks/results/warm_nights_SOURCE.json``. A stage that was finished is kept in the work
folder and not done again, so that the program can be stopped and started; other settings have a folder of their own.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import inspect
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the runner does: threads that wait must not spin

import numpy as np
import torch
import yaml

from stillhouse.data.files import read_json, write_json, write_none
from stillhouse.data.sources import fingerprint
from stillhouse.data.tonight import read_night
from stillhouse.evaluate.against import paired_users
from stillhouse.evaluate.paired import lower_bound
from stillhouse.evaluate.popularity import popularity_scores
from stillhouse.evaluate.ranks import Ranks, read_ranks, write_evaluation
from stillhouse.evaluate.scoring import score_split
from stillhouse.models.checkpoint import load
from stillhouse.params.base import StageParams, build, stage_values
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.runner.stage import load_stage
from stillhouse.train.compute import fabric_of, repeatable

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
#: Parts that the nights' seconds are summed up in, in the order of the graph.
PARTS = {
    "data": ("ingest", "validate", "admit", "prepare"),
    "teacher": ("train_teacher",),
    "check": ("check_teacher",),
    "export": ("export_soft_targets",),
    "students": ("train_student",),
    "package, evaluate": ("package", "evaluate"),
}
MARGIN, SHARE = 0.03, 0.25
#: Of the bound; the gate's own numbers.
CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 17


@dataclass(frozen=True)
class Line:
    """One way of playing the nights."""

    name: str
    cold_every: int | None
    """1: every night cold; ``None``: only the first."""

    def cold(self, night: int) -> bool:
        """Say whether night ``night`` (from 0) starts from nothing."""
        return night == 0 or (self.cold_every is not None and night % self.cold_every == 0)


COLD, WARM = Line("cold", 1), Line("warm", None)


def origin(line: Line, night: int) -> Line:
    """Return the line that plays a night of ``line``: until its second cold night all warm lines are one."""
    if line.cold(night):
        return COLD
    return WARM if line.cold_every is not None and night < line.cold_every else line


@dataclass(frozen=True)
class Play:
    """Everything that decides what comes out."""

    params: Mapping[str, Any]
    """The whole of params.yaml, as it is used."""
    warm: Mapping[str, Any]
    """Settings that differ on warm nights, by their path."""
    source: Mapping[str, Any]
    nights: Sequence[datetime]
    """The nights' ``as_of``."""
    work: Path
    compare_every: int
    """The cold line is played on every N-th night, and where another line starts cold."""

    def plays(self, lines: Sequence[Line], line: Line, night: int) -> bool:
        """Say whether ``line`` has a night of its own or of another line to show."""
        return line is not COLD or night % self.compare_every == 0 or any(each.cold(night) for each in lines[1:])

    def folder(self, line: str, night: int) -> Path:
        """Return where a line's night stands."""
        return self.work / line.replace("/", "-") / f"night-{night:02d}"


class Performer:
    """Performs the stages of one night in one folder, and remembers those that are done."""

    def __init__(self, play: Play, folder: Path, night: int, *, warm: bool = False) -> None:
        """Perform night ``night`` in ``folder``, with the settings of warm nights if it is one."""
        self.play, self.folder, self.night = play, folder, night
        self.document = changed(play.params, play.warm) if warm else play.params
        (folder / "stages").mkdir(parents=True, exist_ok=True)

    def run(self, stage: str, outputs: Mapping[str, Path], **inputs: Path) -> None:
        """Run one stage function, unless it is done; keep its figures, and its wall-clock and CPU seconds."""
        noted = self.folder / "stages" / f"{stage}.json"
        if noted.is_file():
            return
        for path in outputs.values():  # of a run that was killed
            shutil.rmtree(path, ignore_errors=True)
        base, _, instance = stage.partition("@")
        function, model = load_stage(base)
        paths = {**inputs, **outputs}
        with tempfile.TemporaryDirectory(dir=self.folder) as resume:
            if "resume" in inspect.signature(function).parameters:
                paths["resume"] = Path(resume)
            params = build(model, self._values(model, instance or None), stage)
            wall, cpu = time.perf_counter(), time.process_time()
            figures = function(**paths, params=params, reporter=SilentReporter())
            seconds = [time.perf_counter() - wall, time.process_time() - cpu]
        write_json(noted, {"seconds": seconds, "figures": dict(figures)})

    def _values(self, model: type[StageParams], instance: str | None) -> dict[str, Any]:
        source, as_of = self.play.source, self.play.nights[self.night]
        night: dict[str, Any] = {"as_of": as_of.isoformat(), "source": source}
        if "fingerprint" in model.night:
            night["fingerprint"] = fingerprint(SourceSpec.model_validate(source), as_of)
        return stage_values(model, self.document, {key: night[key] for key in model.night}, instance)


def play_data(play: Play, night: int) -> None:
    """Ingest, validate, admit and prepare a night, once for all lines."""
    here = play.folder("data", night)
    if (here / "done").is_file():
        return
    before = here / "nothing" if night == 0 else play.folder("data", night - 1)
    for name in ("vocabulary", "profile") if night == 0 else ():
        write_none(before / name)
    performer = Performer(play, here, night)
    performer.run("ingest", {"snapshot": here / "snapshot"})
    performer.run(
        "validate",
        {name: here / name for name in ("accepted", "quarantine", "profile", "verdict", "data_docs")},
        snapshot=here / "snapshot",
        previous_profile=before / "profile",
    )
    performer.run("admit", {"admitted": here / "admitted"}, verdict=here / "verdict")
    performer.run(
        "prepare",
        {name: here / name for name in ("vocabulary", "sequences")},
        accepted=here / "accepted",
        admitted=here / "admitted",
        previous_vocabulary=before / "vocabulary",
    )
    for name in ("snapshot", "accepted", "quarantine", "data_docs"):
        shutil.rmtree(here / name, ignore_errors=True)
    (here / "done").touch()


def play_models(play: Play, line: Line, night: int) -> None:
    """Train, check, export, distil, package and evaluate a line's night."""
    here = play.folder(line.name, night)
    if (here / "done").is_file():
        return
    data, warm = play.folder("data", night), not line.cold(night)
    performer = Performer(play, here, night, warm=warm)
    common = {name: data / name for name in ("vocabulary", "sequences")}
    previous = played(play, line, night - 1) if warm else here / "nothing"
    names = ("teacher", "soft_targets", *play.params["students"])
    for name in () if warm else names:
        write_none(previous / name)
    performer.run("train_teacher", {"teacher": here / "teacher"}, **common, previous_teacher=previous / "teacher")
    performer.run(
        "check_teacher",
        {"checked": here / "checked", "timings": here / "teacher-timings"},
        **common,
        teacher=here / "teacher",
        previous_teacher=previous / "teacher",
    )
    performer.run(
        "export_soft_targets",
        {"soft_targets": here / "soft_targets"},
        **common,
        teacher=here / "teacher",
        checked=here / "checked",
        previous_soft_targets=previous / "soft_targets",
    )
    for name in play.params["students"]:
        packed = here / f"{name}-package"
        performer.run(
            f"train_student@{name}",
            {"student": here / name},
            **common,
            soft_targets=here / "soft_targets",
            previous_student=previous / name,
        )
        performer.run(f"package@{name}", {"package": packed}, **common, student=here / name)
        timed = {"evaluation": here / "evaluations" / name, "timings": here / f"{name}-timings"}
        performer.run(f"evaluate@{name}", timed, **common, package=packed)
    rank_teacher(play, data, here / "teacher", here / "evaluations" / "teacher")
    (here / "done").touch()


def rank_teacher(play: Play, data: Path, teacher: Path, evaluation: Path) -> None:
    """Keep the teacher's ranks on the time window, as `evaluate` keeps a student's."""
    params = build(TrainTeacherParams, stage_values(TrainTeacherParams, play.params, {}), "bench")
    words, events = read_night(data / "vocabulary", data / "sequences", params.repeat_items)
    model, _ = load(teacher, vocabulary=words.digest)
    fabric = fabric_of(params.compute)
    model = model.to(fabric.device)

    @torch.no_grad()
    def score(histories: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(histories).to(fabric.device)).float().cpu().numpy()

    with repeatable(params.compute):
        scored = score_split(
            events,
            "window",
            score,
            length=model.length,
            k=10,
            batch_size=512,
            repeat_items=params.repeat_items,
            fallback=popularity_scores(words.popularity),
        )
    write_evaluation(evaluation, {"time_window": scored}, words.n_items, {})


def played(play: Play, line: Line, night: int) -> Path:
    """Return where a line's night stands: a cold night is the cold line's."""
    return play.folder(origin(line, night).name, night)


def changed(document: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` with the values of ``settings``, given by their paths, in it."""
    made = copy.deepcopy(dict(document))
    for path, value in settings.items():
        *parents, last = path.split(".")
        place = made
        for parent in parents:
            place = place[parent]
        place[last] = value
    return made


def stages_of(play: Play, line: Line, night: int) -> dict[str, Any]:
    """Return stage → its seconds and figures of a line's night, the data's included."""
    folders = (play.folder("data", night), played(play, line, night))
    return {file.stem: read_json(file) for folder in folders for file in sorted((folder / "stages").iterdir())}


def seconds_of(play: Play, line: Line, night: int) -> dict[str, list[float]]:
    """Return part → [wall, CPU] seconds of a line's night."""
    sums = {part: [0.0, 0.0] for part in PARTS}
    for stage, noted in stages_of(play, line, night).items():
        part = next(part for part, names in PARTS.items() if stage.partition("@")[0] in names)
        sums[part] = [total + one for total, one in zip(sums[part], noted["seconds"], strict=True)]
    return sums


def ranks_of(play: Play, line: Line, night: int, model: str) -> Ranks:
    """Return a model's ranks on a night's time window."""
    found = read_ranks(played(play, line, night) / "evaluations" / model)
    if found is None:
        raise SystemExit(f"{model} must have been evaluated on night {night} of {line.name}, found no ranks")
    return found


def compared(play: Play, line: Line, other: Line, nights: Sequence[int], model: str) -> dict[str, Any]:
    """Hold ``line`` against ``other``: a row a night, and all nights together (a user counted once)."""
    rows, users, ours, theirs = [], [], [], []
    for night in nights:
        a, b = ranks_of(play, line, night, model), ranks_of(play, other, night, model)
        if not len(a.rows["time_window"].users):
            continue
        mine, its = paired_users(a, b, "time_window")
        rows.append({"night": night, **against(mine, its)})
        users.append(np.unique(a.rows["time_window"].users))
        ours.append(mine)
        theirs.append(its)
    if not rows:
        return {"nights": [], "all": None}
    codes = np.unique(np.concatenate(users), return_inverse=True)[1]
    counts = np.bincount(codes)
    means = [np.bincount(codes, np.concatenate(values)) / counts for values in (ours, theirs)]
    return {"nights": rows, "all": against(*means)}


def against(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return both means, and the relative difference with its lower bound."""
    mean = max(float(theirs.mean()), 1e-12)
    return {
        "users": len(ours),
        "ours": float(ours.mean()),
        "theirs": float(theirs.mean()),
        "change": float((ours - theirs).mean()) / mean,
        "bound": lower_bound(ours - theirs, CONFIDENCE, RESAMPLES, SEED) / mean,
    }


def main() -> None:
    """Play the nights and report."""
    options = arguments()
    play, lines = planned(options)
    for night in range(len(play.nights)):
        play_data(play, night)
        for line in lines:
            if origin(line, night) is line and play.plays(lines, line, night):
                began = time.perf_counter()
                play_models(play, line, night)
                took = time.perf_counter() - began
                print(f"{line.name}, night {night}: {took:.0f} s", file=sys.stderr, flush=True)
    result = report(play, lines)
    show(play, lines, result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"warm_nights_{options.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def report(play: Play, lines: Sequence[Line]) -> dict[str, Any]:
    """Return everything that is shown, as plain data."""
    nights = range(len(play.nights))
    models = ["teacher", *play.params["students"]]
    later = [line for line in lines if line is not COLD]
    both = [night for night in nights if play.plays(lines, COLD, night)]

    def nightly(function: Callable[[Play, Line, int], Any]) -> dict[str, list[Any]]:
        return {
            line.name: [function(play, line, night) if play.plays(lines, line, night) else None for night in nights]
            for line in lines
        }

    return {
        "machine": {
            "cores": os.cpu_count(),
            "threads": play.params["compute"]["threads"],
            "precision": play.params["compute"]["precision"],
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
            "platform": platform.machine(),
            "date": datetime.now(tz=UTC).date().isoformat(),
        },
        "nights": [night.isoformat() for night in play.nights],
        "source": dict(play.source),
        "settings": {name: play.params[name] for name in ("train_teacher", "train_student", "students")},
        "warm_settings": dict(play.warm),
        "seconds": nightly(seconds_of),
        "stages": nightly(stages_of),
        "share": {line.name: shares(play, line, both) for line in later},
        "against_cold": {
            line.name: {
                model: compared(play, line, COLD, [n for n in both if not line.cold(n)], model) for model in models
            }
            for line in later
        },
        "against_warm": {
            line.name: {model: compared(play, line, WARM, nights, model) for model in models}
            for line in later
            if line is not WARM and WARM in lines
        },
    }


def shares(play: Play, line: Line, nights: Sequence[int]) -> dict[str, Any]:
    """Return what the line's warm ``nights`` cost as a share of the same ones cold, by wall-clock and by CPU."""
    found: dict[str, Any] = {"nights": []}
    sums = np.zeros((2, 2))
    for night in nights:
        if line.cold(night):
            continue
        pair = [np.sum(list(seconds_of(play, each, night).values()), axis=0) for each in (line, COLD)]
        sums += pair
        found["nights"].append({"night": night, "wall": pair[0][0] / pair[1][0], "cpu": pair[0][1] / pair[1][1]})
    if found["nights"]:
        found["median_wall"] = float(np.median([row["wall"] for row in found["nights"]]))
        found["median_cpu"] = float(np.median([row["cpu"] for row in found["nights"]]))
        found["wall"], found["cpu"] = (sums[0] / sums[1]).tolist()
    return found


def show(play: Play, lines: Sequence[Line], result: Mapping[str, Any]) -> None:
    """Print the tables."""
    machine = result["machine"]
    print(f"{machine['cores']} cores, {machine['precision']}, GPU {machine['gpu']}, {machine['date']}")
    head = "".join(f"{part:>19}" for part in PARTS)
    print("\nseconds (CPU seconds); scored: share of the positions that the export scored anew")
    print(f"{'night':<6}{'rows':>9}{'new items':>10}{'scored':>8}  {'line':<8}{head}{'in all':>19}")
    for night in range(len(play.nights)):
        prepared = result["stages"][WARM.name][night]["prepare"]["figures"]
        for line in lines:
            if origin(line, night) is not line or result["stages"][line.name][night] is None:
                continue
            parts = result["seconds"][line.name][night]
            exported = result["stages"][line.name][night]["export_soft_targets"]["figures"]
            total = np.sum(list(parts.values()), axis=0)
            cells = "".join(f"{f'{wall:.1f} ({cpu:.1f})':>19}" for wall, cpu in [*parts.values(), total])
            print(
                f"{night:<6}{prepared['training_rows']:>9}{prepared['new_items']:>10}"
                f"{exported['positions_scored'] / exported['positions']:>8.0%}  {line.name:<8}{cells}"
            )
    for line in lines:
        if line is not COLD and result["share"][line.name]["nights"]:
            share = result["share"][line.name]
            print(
                f"{line.name}: a warm night costs {share['median_wall']:.1%} of the same night cold (median of "
                f"{len(share['nights'])}; by CPU {share['median_cpu']:.1%}); all of them {share['wall']:.1%} "
                f"(by CPU {share['cpu']:.1%}); asked {SHARE:.0%}"
            )
    for title, key, names in (("cold", "against_cold", lines), ("warm", "against_warm", lines)):
        for line in names:
            for model, found in result[key].get(line.name, {}).items():
                if found["all"] is None:
                    continue
                print(f"\nNDCG@10 on the time window, {model}: {line.name} against {title}")
                print(f"{'night':<7}{'users':>7}{title:>9}{line.name:>9}{'change':>9}{'bound':>9}")
                for row in [*found["nights"], {"night": "all", **found["all"]}]:
                    print(
                        f"{row['night']!s:<7}{row['users']:>7}{row['theirs']:>9.4f}{row['ours']:>9.4f}"
                        f"{row['change']:>+9.1%}{row['bound']:>+9.1%}"
                    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", choices=("shop", "yelp"), default="shop")
    parser.add_argument("--short", action="store_true", help="a small shop, three nights: for make bench")
    parser.add_argument("--nights", type=int, help="how many (default: 10 of the shop, 6 of Yelp)")
    parser.add_argument("--size", default="large", help="of the shop")
    parser.add_argument("--users", type=int, help="a smaller shop; or the first so many users of Yelp")
    parser.add_argument("--items", type=int, help="of a smaller shop")
    parser.add_argument("--rows", type=int, help="of a smaller shop, in its first sixty days")
    parser.add_argument("--shared", type=Path, help="folder with data/yelp-blocks (or STILLHOUSE_SHARED)")
    parser.add_argument("--cold-every", type=int, help="a third line: cold every so many nights")
    parser.add_argument("--compare-every", type=int, default=1, help="play cold nights on every N-th night alone")
    parser.add_argument("--epochs", type=int, help="most epochs of a cold training, teacher and students")
    parser.add_argument("--students", nargs="*", help="which of params.yaml's (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE", help="another value for a setting")
    parser.add_argument(
        "--warm-set", nargs="*", default=[], metavar="PATH=VALUE", help="the same, on warm nights alone"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".stillhouse" / "bench", help="where nights are kept")
    parser.add_argument("--name", help="of the result file (default: the source)")
    options = parser.parse_args()
    options.name = options.name or ("short" if options.short else options.source)
    return options


SHORT = {
    "validate.min_rows": 100,
    "train_teacher.model.width": 32,
    "train_teacher.model.length": 30,
    "check_teacher.min_over_popularity": 0.0,
    "check_teacher.max_drop": 1.0,
    "evaluate.latency_requests": 50,
}


def planned(options: argparse.Namespace) -> tuple[Play, list[Line]]:
    """Turn the command line into what is played and on which lines."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = dict(SHORT) if options.short else {}
    if options.short:
        options.users, options.items, options.rows, options.nights = 600, 400, 20_000, 3
        options.epochs = options.epochs or 12
    if options.epochs is not None:
        settings |= {f"{name}.training.epochs": options.epochs for name in ("train_teacher", "train_student")}
    document = changed(document, settings | pairs(options.set))
    if options.short or options.students:
        wanted = options.students or list(document["students"])[:1]
        document["students"] = {name: document["students"][name] for name in wanted}
    source, first = shop(document, options) if options.source == "shop" else yelp(document, options)
    count = options.nights or (10 if options.source == "shop" else 6)
    nights = [first + timedelta(days=day) for day in range(count)]
    warm = pairs(options.warm_set)
    facts = json.dumps([document, warm, source, first.isoformat()], sort_keys=True)
    work = options.work / f"{options.name}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"
    lines = [COLD, WARM]
    if options.cold_every:
        lines.append(Line(f"cold/{options.cold_every}", options.cold_every))
    return Play(document, warm, source, nights, work, options.compare_every), lines


def shop(document: Mapping[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], datetime]:
    """Return the shop as a source, and its first night."""
    made = changed(
        document["source"],
        {
            "kind": "shop",
            "shop": {
                "size": options.size,
                "seed": 7,
                "users": options.users,
                "items": options.items,
                "rows": options.rows,
            },
        },
    )
    return made, datetime(2026, 3, 2, tzinfo=UTC)


def yelp(document: Mapping[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], datetime]:
    """Return the six blocks as a source, and the day of the first."""
    shared = options.shared or Path(os.environ.get("STILLHOUSE_SHARED", ROOT.parent / "shared"))
    path = shared / "data" / "yelp-blocks" / "interactions.parquet"
    if not path.is_file():
        raise SystemExit(f"yelp-blocks must lie in {shared}/data, found no {path.name}: give --shared")
    if options.users:
        path = first_users(path, options)
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp", "position": None, "rating": None}
    made = changed(
        document["source"],
        {"kind": "file", "path": str(path), "columns": {**columns, "event": None}, "later_rows": "leave"},
    )
    return made, datetime(2024, 1, 1, tzinfo=UTC)


def first_users(path: Path, options: argparse.Namespace) -> Path:
    """Write the rows of the users with the lowest numbers, and return where."""
    import pandas as pd

    cut = options.work / f"yelp-{options.users}.parquet"
    if not cut.is_file():
        rows = pd.read_parquet(path)
        cut.parent.mkdir(parents=True, exist_ok=True)
        rows[rows["user_id"] < options.users].to_parquet(cut, index=False)
    return cut


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """Read ``PATH=VALUE`` settings; a value is YAML."""
    return {path: yaml.safe_load(value) for path, _, value in (text.partition("=") for text in given)}


if __name__ == "__main__":
    main()
