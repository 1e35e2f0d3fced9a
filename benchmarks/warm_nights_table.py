"""What nights that were played cost, and how their models compare: the tables of `warm_nights.py`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from warm_nights_play import COLD, WARM, Line, Play, origin, played

from stillhouse.data.files import read_json
from stillhouse.evaluate.against import paired_users
from stillhouse.evaluate.paired import lower_bound
from stillhouse.evaluate.ranks import Ranks, read_ranks

#: Parts that the nights' seconds are summed up in, in the order of the graph.
PARTS = {
    "data": ("ingest", "validate", "admit", "prepare"),
    "teacher": ("train_teacher",),
    "check": ("check_teacher",),
    "export": ("export_soft_targets",),
    "students": ("train_student",),
    "package, evaluate": ("package", "evaluate"),
}
#: Of a cold night's seconds, what a warm one is to cost at most.
SHARE = 0.25
#: Of the bound; the gate's own numbers.
CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 17


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
