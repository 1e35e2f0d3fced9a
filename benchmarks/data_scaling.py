"""What `validate` and `prepare` cost from 10^5 to 10^7 rows of the built-in shop: seconds, peak memory, how straight.

The shop grows as a whole: a hundred rows a user, five hundred an item. Every point is a process of its own, which makes
nothing but one stage; its peak memory is that of the whole process (`_peers.memory`), Python and libraries included.
Seconds are those of the stage's function, Great Expectations' import included. Prints a table and writes
``benchmarks/results/data_scaling.json`` and a plot, ``data_scaling.svg``.

    .venv/bin/python benchmarks/data_scaling.py --repeat 3
    .venv/bin/python benchmarks/data_scaling.py --short
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _peers.arguments import at_least
from _peers.memory import peak_mib
from _peers.report import table, write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
STAGES = ("validate", "prepare")
KEYS = ("seconds", "cpu_seconds", "peak_gib")
ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
SHORT = (100_000, 300_000, 1_000_000)
#: What the issue allows for both stages together, and for each, at ten million rows.
SECONDS, GIB = 60.0, 3.0


def perform(stage: str, folder: Path, rows: int) -> dict[str, float]:
    """Run one stage of the shop of about ``rows`` rows in this process and return what it cost.

    Args:
        stage: ``ingest``, ``validate`` or ``prepare``.
        folder: what the stages before left, and where this one's outputs go.
        rows: rows of the shop, bad ones among them.
    """
    import yaml

    from stillhouse.data.files import write_none
    from stillhouse.params.base import build, stage_values
    from stillhouse.reporting import SilentReporter
    from stillhouse.runner.stage import load_stage

    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shop = {"size": "huge", "rows": rows, "users": max(200, rows // 100), "items": max(200, rows // 500)}
    document["source"]["shop"].update(shop)
    function, model = load_stage(stage)
    params = build(model, stage_values(model, document, _night(document), None), "params.yaml")
    if not (folder / "none").exists():
        write_none(folder / "none")
    paths = {name: folder / place for name, place in _PATHS[stage].items()}
    started, used = time.perf_counter(), time.process_time()
    found = function(**paths, params=params, reporter=SilentReporter())
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "peak_gib": peak_mib() / 1024,
        "rows": float(found.get("rows", found.get("snapshot_rows", 0))),
    }


_PATHS = {
    "ingest": {"snapshot": "snapshot"},
    "validate": {
        "snapshot": "snapshot",
        "previous_profile": "none",
        "accepted": "accepted",
        "quarantine": "quarantine",
        "profile": "profile",
        "verdict": "verdict.json",
        "data_docs": "data_docs",
    },
    "prepare": {
        "accepted": "accepted",
        "admitted": "verdict.json",
        "previous_vocabulary": "none",
        "vocabulary": "vocabulary",
        "sequences": "sequences",
    },
}


def _night(document: dict[str, Any]) -> dict[str, Any]:
    from stillhouse.data.shop import first_as_of
    from stillhouse.data.sources import fingerprint
    from stillhouse.params.source import SourceSpec

    source = SourceSpec(**document["source"])
    as_of = first_as_of(source.shop)
    return {"as_of": as_of.isoformat(), "source": document["source"], "fingerprint": fingerprint(source, as_of)}


def apart(stage: str, folder: Path, rows: int) -> dict[str, float]:
    """Run `perform` in a process of its own."""
    command = [sys.executable, __file__, "--perform", stage, "--folder", str(folder), "--rows", str(rows)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def once(rows: int) -> dict[str, dict[str, float]]:
    """Return stage → what it cost on the shop of about ``rows`` rows."""
    with tempfile.TemporaryDirectory() as folder:
        apart("ingest", Path(folder), rows)
        return {stage: apart(stage, Path(folder), rows) for stage in STAGES}


def straightness(rows: list[float], values: list[float]) -> dict[str, Any]:
    """Say how far ``values`` over ``rows`` are from a line with a fixed part.

    The line is fitted to relative errors, so that the small points count as much as the large ones.
    ``worst`` is the largest relative distance from it; ``r2`` that of a line by least squares.
    ``exponent`` (1: straight) is the slope of a log-log fit to what remains without the fixed part,
    where that is at least a third of the value; None where fewer than two points have as much.
    """
    x, y = np.asarray(rows), np.asarray(values)
    slope, fixed = np.polyfit(x, y, 1, w=1 / y)
    line = fixed + slope * x
    rest = y - max(float(fixed), 0.0)
    clear = rest > y / 3
    exponent = np.polyfit(np.log(x[clear]), np.log(rest[clear]), 1)[0] if clear.sum() > 1 else None
    return {
        "fixed": float(fixed),
        "per_million_rows": float(slope * 1e6),
        "r2": float(np.corrcoef(x, y)[0, 1] ** 2),
        "worst": float(np.abs(line / y - 1).max()),
        "exponent": None if exponent is None else float(exponent),
    }


def draw(points: list[dict[str, Any]], to: Path) -> None:
    """Plot seconds and peak memory over rows, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "stillhouse"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rows = np.array([point["rows"] for point in points])
    for axis, key, label, limit in ((axes[0], "seconds", "seconds", SECONDS), (axes[1], "peak_gib", "peak GiB", GIB)):
        for stage, marker in zip(STAGES, "os", strict=True):
            values = [point[stage][key] for point in points]
            fit = straightness(rows.tolist(), values)
            [drawn] = axis.loglog(rows, values, marker, label=stage)
            axis.loglog(rows, fit["fixed"] + fit["per_million_rows"] * rows / 1e6, color=drawn.get_color(), lw=0.8)
        axis.axhline(limit, color="0.6", ls=":", lw=1)
        axis.set(xlabel="rows of the shop", ylabel=label)
        axis.legend(frameon=False)
    figure.suptitle("validate and prepare; lines: fixed part + rows; dotted: limit at ten million rows", fontsize=9)
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measure every point, print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=at_least(1), default=3, help="rounds over all sizes (default: 3)")
    parser.add_argument("--short", action="store_true", help="one round, up to a million rows")
    parser.add_argument("--perform", choices=["ingest", *STAGES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.perform:
        print(json.dumps(perform(given.perform, given.folder, given.rows)))
        return
    sizes, repeat = (SHORT, 1) if given.short else (ROWS, given.repeat)
    name = "data_scaling_short" if given.short else "data_scaling"
    load = [round(os.getloadavg()[0], 1)]
    rounds: list[dict[int, dict[str, dict[str, float]]]] = []
    for number in range(repeat):
        rounds.append({rows: once(rows) for rows in sizes})
        load.append(round(os.getloadavg()[0], 1))
        print(f"round {number + 1} of {repeat}: load {load[-1]}", file=sys.stderr)
        points = [_point(rows, [one[rows] for one in rounds]) for rows in sizes]
        keep(name, points, len(rounds), load)
    show(points)


def fits(points: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return stage and figure → how straight it is."""
    rows = [point["rows"] for point in points]
    return {f"{of}, {key}": straightness(rows, [point[of][key] for point in points]) for of in STAGES for key in KEYS}


def keep(name: str, points: list[dict[str, Any]], rounds: int, load: list[float]) -> None:
    """Write the medians so far as JSON and as a plot: a long run that is cut short leaves what it found."""
    limits = {"seconds": SECONDS, "peak_gib": GIB}
    write(name, sys.argv, rounds=rounds, load=load, limits=limits, points=points, fits=fits(points))
    draw(points, RESULTS / f"{name}.svg")


def show(points: list[dict[str, Any]]) -> None:
    """Print the medians and how straight they are."""
    head = ["rows", *(f"{stage} {what}" for stage in STAGES for what in ("s", "best", "cpu s", "GiB")), "both s"]
    table(head, [_row(point) for point in points])
    print()
    head = ["line through", "fixed", "a million rows", "R2", "worst point", "exponent"]
    table(head, [[name, *_shown(fit)] for name, fit in fits(points).items()])


def _row(point: dict[str, Any]) -> list[str]:
    shown = [point[stage] for stage in STAGES]
    cells = [f"{one[key]:.2f}" for one in shown for key in ("seconds", "best_seconds", "cpu_seconds", "peak_gib")]
    return [f"{point['rows']:,.0f}", *cells, f"{sum(one['seconds'] for one in shown):.2f}"]


def _shown(fit: dict[str, Any]) -> list[str]:
    exponent = "-" if fit["exponent"] is None else f"{fit['exponent']:.2f}"
    return [
        f"{fit['fixed']:.2f}",
        f"{fit['per_million_rows']:.3f}",
        f"{fit['r2']:.4f}",
        f"{fit['worst']:.0%}",
        exponent,
    ]


def _point(size: int, costs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    point: dict[str, Any] = {"asked": size, "rows": costs[0]["validate"]["rows"]}
    for stage in STAGES:
        every = {key: [one[stage][key] for one in costs] for key in KEYS}
        point[stage] = {key: statistics.median(values) for key, values in every.items()}
        point[stage]["best_seconds"] = min(every["seconds"])
        point[stage]["every"] = every
    return point


if __name__ == "__main__":
    main()
