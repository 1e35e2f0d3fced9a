"""What ``quality.py`` made, as tables, JSON and a plot: students against their teacher and against themselves alone."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _peers.report import table as print_table
from _peers.report import write
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stillhouse.data.files import read_json
from stillhouse.models.checkpoint import load
from stillhouse.models.quantised import keep_rounded
from stillhouse.package.compress import exportable

__all__ = ["gains", "report"]

#: Tracks that the plot leaves out: what is in them is of few epochs, or nothing that anybody would serve.
_NO_POINTS = ("methods", "controls", "copies")
#: The teacher against which the plot's students are held.
_ONE = "teacher-turned"
#: Draws of the bootstrap.
_RESAMPLES = 1000


def gains(ranks: np.ndarray) -> np.ndarray:
    """Return each target's part of NDCG@10."""
    return np.where(ranks <= 10, 1.0 / np.log2(ranks + 1.0), 0.0)


def table(plan: Mapping[str, Any], work: Path, names: Collection[str]) -> list[dict[str, Any]]:
    """Return a row for each run of ``names``, against the teacher and the same student alone.

    Its figures are medians over seeds, a teacher's means.
    """
    rows = []
    for name, run in plan["runs"].items():
        if name not in names:
            continue
        folders = sorted((work / "runs").glob(f"{name}.[0-9]*"))
        done = [folder for folder in folders if (folder / "result.json").exists()]
        if not done:
            continue
        found = [read_json(folder / "result.json") for folder in done]
        row: dict[str, Any] = {"run": name, "seeds": len(done), "role": run["role"], "track": run.get("track")}
        for key in found[0]:
            values = [one.get(key) for one in found]
            if all(isinstance(value, int | float) for value in values):
                row[key] = float(np.mean(values) if run["role"] == "teacher" else np.median(values))
        if run["role"] == "teacher" and len(found) > 1:
            row["ndcg_at_10_deviation"] = float(np.std([one["ndcg_at_10"] for one in found], ddof=1))
        if run["role"] == "student":
            row |= _against(plan, work, name, done)
        rows.append(row)
    return rows


def _against(plan: Mapping[str, Any], work: Path, name: str, done: list[Path]) -> dict[str, Any]:
    """Compare with the teacher (ratio and its bound) and with the same student alone (gap closed and its interval)."""
    run = plan["runs"][name]
    folder = work / "runs" / f"{run['teacher']}.1"
    if not (folder / "result.json").exists():
        return {}
    mine, teacher = _gains(done), _gains([folder])[0]
    drawn = [(_resampled(mine, draw), teacher[draw[0]].mean()) for draw in _draws(len(teacher), 1)]
    size = read_json(folder / "result.json").get("weight_bytes")
    served = [_served(one) for one in done]
    result: dict[str, Any] = {
        "of_teacher": _middle(mine) / float(teacher.mean()),
        "of_teacher_bound": float(np.quantile([own / theirs for own, theirs in drawn], 0.05)),
        "bytes_of_teacher": float(np.median([bytes_ for bytes_, _ in served])) / size,
        "bytes_of_teacher_equal": float(
            np.median([bytes_ / teacher_bytes(folder / "teacher", precision) for bytes_, precision in served])
        ),
    }
    alone = [f for f in sorted((work / "runs").glob(f"{run.get('alone', '-')}.[0-9]*")) if (f / "ranks.npz").exists()]
    if not alone:
        return result
    base = _gains(alone)
    lag = teacher - base.mean(axis=0)
    draws = zip(drawn, _draws(len(teacher), 1), _draws(len(teacher), 2), strict=True)
    closed = []
    for (own, theirs), draw, other in draws:
        start = _resampled(base, (draw[0], other[1]))
        closed.append((own - start) / (theirs - start))
    low, high = np.quantile(closed, [0.025, 0.975])
    return result | {
        "gap_closed": (_middle(mine) - _middle(base)) / (float(teacher.mean()) - _middle(base)),
        "gap_closed_low": float(low),
        "gap_closed_high": float(high),
        "gap_in_errors": float(lag.mean() / (lag.std() / np.sqrt(len(lag)))),
    }


def _served(folder: Path) -> tuple[float, str]:
    """Return a student's bytes of weights as served, and what its matrices are kept in."""
    return read_json(folder / "result.json")["weight_bytes"], read_json(folder / "package" / "package.json")["weights"]


@cache
def teacher_bytes(checkpoint: Path, precision: str) -> int:
    """Return the bytes of a teacher's weights if it were served in ``precision``, counted as a student's package is.

    In int8 a matrix is a byte a number and a scale of two bytes a row (`stillhouse.package.compress`); vectors stay
    float32.
    """
    model, _ = load(checkpoint)
    keep_rounded(model)
    served = exportable(model, int8=precision == "int8")
    return sum(tensor.nbytes for tensor in served.state_dict().values())


def _gains(folders: list[Path]) -> np.ndarray:
    """Return every seed's and every user's part of NDCG@10 on the test split, float64 [seeds, users]."""
    return np.stack([gains(np.load(folder / "ranks.npz")["test"]) for folder in folders])


def _draws(users: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give users drawn with replacement, and numbers in [0, 1) that pick seeds of runs; a ``seed`` gives the same."""
    draw, other = np.random.default_rng(7), np.random.default_rng(seed)
    for _ in range(_RESAMPLES):
        yield draw.integers(0, users, users), other.random(32)


def _resampled(found: np.ndarray, draw: tuple[np.ndarray, np.ndarray]) -> float:
    """Return `_middle` of the drawn users of ``found`` [seeds, users] and as many drawn seeds as there are."""
    users, numbers = draw
    seeds = (numbers[: len(found)] * len(found)).astype(int)
    return _middle(found[seeds][:, users])


def _middle(found: np.ndarray) -> float:
    """Return the median over seeds of the mean over users of ``found`` [seeds, users]."""
    return float(np.median(found.mean(axis=1)))


#: Head of a column → key of a row, its format, and what it is multiplied by.
_COLUMNS = {
    "NDCG@10": ("ndcg_at_10", ".4f", 1.0),
    "±": ("ndcg_at_10_deviation", ".4f", 1.0),
    "HR@10": ("hr_at_10", ".4f", 1.0),
    "valid": ("valid_ndcg_at_10", ".4f", 1.0),
    "train/valid": ("train_over_valid", ".2f", 1.0),
    "of teacher": ("of_teacher", ".1%", 1.0),
    "bound": ("of_teacher_bound", ".1%", 1.0),
    "gap": ("gap_closed", ".0%", 1.0),
    "low": ("gap_closed_low", ".0%", 1.0),
    "high": ("gap_closed_high", ".0%", 1.0),
    "errors": ("gap_in_errors", ".1f", 1.0),
    "kB": ("weight_bytes", ".0f", 1e-3),
    "share": ("bytes_of_teacher", ".1%", 1.0),
    "equal": ("bytes_of_teacher_equal", ".1%", 1.0),
    "B/item": ("bytes_per_item", ".0f", 1.0),
    "rest": ("parameters_without_embeddings", ",.0f", 1.0),
    "MFLOP": ("flops", ".1f", 1e-6),
    "p50 ms": ("p50_ms", ".2f", 1.0),
    "s/epoch": ("epoch_seconds", ".1f", 1.0),
    "epochs": ("epochs", ".0f", 1.0),
    "peak MB": ("peak_mb", ".0f", 1.0),
}


def report(plan: Mapping[str, Any], work: Path, names: Collection[str], stale: Collection[str]) -> None:
    """Print the tables of the runs ``names`` and write the JSON; those that are ``stale`` bear a mark.

    A report of a part is written beside that of all.
    """
    rows = table(plan, work, names)
    for row in rows:
        row["stale"] = row["run"] in stale
    part = "" if len(names) == len(plan["runs"]) else "_part"

    def shown(row: Mapping[str, Any], key: str, form: str, scale: float) -> str:
        return format(row[key] * scale, form) if row.get(key) is not None else "–"

    for title in dict.fromkeys(row["track"] or row["role"] for row in rows):
        some = [row for row in rows if title in (row["track"], row["role"])]
        heads = {head: column for head, column in _COLUMNS.items() if any(column[0] in row for row in some)}
        cells = [
            [
                f"{row['run']}{'*' * row['stale']}",
                str(row["seeds"]),
                *(shown(row, *column) for column in heads.values()),
            ]
            for row in some
        ]
        print_table([title, "seeds", *heads], cells)
        print()
    write(f"quality{part}", sys.argv, rows=rows)
    points = [row for row in rows if row["track"] not in _NO_POINTS and plan["runs"][row["run"]].get("teacher") == _ONE]
    draw(points, f"quality{part}.png")


def draw(rows: list[dict[str, Any]], name: str) -> None:
    """Draw NDCG@10 as a share of the teacher's over the bytes served as a share of its, as ``results/NAME``."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for track in dict.fromkeys(row["track"] for row in rows):
        some = [row for row in rows if row["track"] == track]
        axes.scatter([row["bytes_of_teacher"] for row in some], [row["of_teacher"] for row in some], label=track)
        for row in some:
            axes.annotate(row["run"], (row["bytes_of_teacher"], row["of_teacher"]), fontsize=6)
    axes.set(xscale="log", xlabel="bytes of weights, of the teacher's", ylabel="NDCG@10, of the teacher's")
    axes.legend(fontsize=7)
    figure.savefig(Path(__file__).with_name("results") / name, dpi=150)
