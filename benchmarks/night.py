"""How long a night takes: the first, one with nothing to do, the same one forced, and the next day.

Clones the checkout into a scratch folder and runs the command line there, as a user would. Prints a table and writes
``benchmarks/results/night.json``.

    .venv/bin/python benchmarks/night.py --repeat 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _peers.arguments import at_least

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
#: What is timed: label → arguments, the most seconds that the first issue allows (2 cores, idle).
RUNS = {
    "first night": ((), 240.0),
    "nothing to do": ((), 20.0),
    "the same, forced": (("--force",), 20.0),
    "the next day": (("--as-of", "2026-03-03"), None),
}


def once(folder: Path) -> dict[str, float]:
    """Return label → seconds for one clone."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}
    found = {}
    for label, (arguments, _) in RUNS.items():
        started = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).parent / "stillhouse"), "run", *arguments],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        found[label] = time.perf_counter() - started
    return found


def main() -> None:
    """Time the runs and report their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=at_least(1), default=3, help="clones to time (default: 3)")
    repeat = parser.parse_args().repeat
    rounds = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(once(Path(folder) / "stillhouse"))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "platform": platform.machine()}
    rows = {}
    print(f"{'run':<20}{'median s':>10}{'min':>8}{'max':>8}{'limit':>8}   ({repeat} rounds, {machine['cores']} cores)")
    for label, (_, limit) in RUNS.items():
        seconds = [one[label] for one in rounds]
        rows[label] = {"seconds": seconds, "median": statistics.median(seconds), "limit": limit}
        shown = f"{limit:>8.0f}" if limit else f"{'–':>8}"
        print(f"{label:<20}{rows[label]['median']:>10.1f}{min(seconds):>8.1f}{max(seconds):>8.1f}{shown}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "night.json").write_text(
        json.dumps({"machine": machine, "runs": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
