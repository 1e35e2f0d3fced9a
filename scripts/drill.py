"""The drill: nights on a stack of their own with everything going wrong that can, and a table of what happened.

    make drill                         fourteen nights on the built-in shop, small models
    python scripts/drill.py --nights 3 the short one, which CI runs
    python scripts/drill.py --only lost_mlflow a_persons_commands
                                       two ordinary nights, then these

A clone of this checkout gets a whole stack (PostgreSQL, MLflow, Prefect, workers) on free ports, a receiver of
alerts, and a night for each day through the deployment that the schedule uses. Each step says beforehand what must
come of it; the exit status is 1 unless everything did.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from _drill.clone import Drill, clone, receiver, stack
from _drill.nights import (
    START,
    a_persons_commands,
    awaiting,
    bad_data,
    killed_worker,
    lost,
    lost_machine,
    nothing_new,
    ordinary,
    tampered,
    worse_student,
)
from rich.console import Console
from rich.table import Table

#: What happens on which night; on any other, nothing.
LONG = {
    3: (bad_data,),
    5: (worse_student,),
    7: (killed_worker,),
    9: (awaiting,),
    10: (lost("mlflow"),),
    11: (lost("prefect"),),
    12: (lost("postgres"),),
    13: (a_persons_commands, tampered),
    14: (lost_machine,),
}
SHORT = {1: (killed_worker,), 2: (awaiting,), 3: (bad_data, tampered)}
STEPS = {step.__name__: step for steps in LONG.values() for step in (*steps, nothing_new)}


def _plan(nights: int, only: list[str]) -> list[tuple[Callable[[Drill, str], None], ...]]:
    """Return what happens on each night; ``only``: after two ordinary ones, which leave a champion and one before."""
    if only:
        plan: list[tuple[Callable[[Drill, str], None], ...]] = [(ordinary,), (ordinary,)]
        for name in only:
            if STEPS[name] in (tampered, nothing_new):  # no nights of their own
                plan[-1] += (STEPS[name],)
            else:
                plan.append((STEPS[name],))
        return plan
    if nights <= len(SHORT):
        return [SHORT[number] for number in range(1, nights + 1)]
    plan = [LONG.get(number, (ordinary,)) for number in range(1, nights + 1)]
    return [*plan[:-1], (*plan[-1], nothing_new)]


def main() -> int:
    """Perform the drill, print its table, and return 0 where everything came as it had to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=14)
    parser.add_argument(
        "--whole",
        action="store_true",
        help="with the models and the gate of params.yaml, whose stages may outlast two minutes of a server's return",
    )
    parser.add_argument("--keep", type=Path, help="make the clone here and keep it")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--only", nargs="+", default=[], choices=STEPS, help="two ordinary nights, then one for each")
    given = parser.parse_args()
    place = given.keep or Path(tempfile.mkdtemp(prefix="stillhouse-drill-")) / "workspace"
    drill = clone(place, whole=given.whole)
    started = time.monotonic()
    try:
        with receiver(drill) as alerts, stack(drill, alerts):
            for number, steps in enumerate(_plan(given.nights, given.only)):
                day = str(START + timedelta(days=number))
                for happens in steps:
                    happens(drill, day)
    finally:
        if given.keep is None:
            shutil.rmtree(place.parent, ignore_errors=True)
    return _told(drill, time.monotonic() - started, given.json)


def _told(drill: Drill, seconds: float, target: Path | None) -> int:
    table = Table(title="The drill", show_lines=True)
    for name in ("night", "what", "expected", "happened", "s", ""):
        table.add_column(name, justify="right" if name == "s" else "left")
    for step in drill.steps:
        table.add_row(
            *(step.night, step.what, step.expected, step.happened),
            *(f"{step.seconds:.0f}", "held" if step.held else "NOT HELD"),
        )
    Console(width=150).print(table)
    missed = [step for step in drill.steps if not step.held]
    print(f"{len(drill.steps) - len(missed)} of {len(drill.steps)} held, {seconds:.0f} s")
    if target is not None:
        target.write_text(json.dumps([step.__dict__ | {"held": step.held} for step in drill.steps], indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
