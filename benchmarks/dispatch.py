"""What a pool costs a stage: from the order to the stage's own work, and from its end to its outputs taken up.

    python benchmarks/dispatch.py --nights 2

Runs nights of the tiny shop over two workers in two clones on real servers (Prefect, MLflow), and reads from the
workers' flow runs, and from the answers on them, what was work and what was dispatch. *Before* is the time from the
stage's task, or where the worker went on from another stage, from the end of that one's work, to its own work; *after*
the time from the end of its work until the night has taken its outputs up. Where the worker goes on meanwhile, that
time is counted twice: once here and once as the next stage's *before*.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _peers.arguments import at_least

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from pools import Pools, mlflow_server, prefect_server
from workspaces import TINY, make_workspace

RESULTS = Path(__file__).parent / "results"
#: Seconds that a pool may cost a stage, in the median.
LIMIT = 5.0

#: For each stage: when its task began, when its work began and ended, when the night had taken it up.
READ = """
import json, time
from prefect.client.orchestration import get_client
from tasks.answering import answer_of
with get_client(sync_client=True) as client:
    until = time.monotonic() + 60  # the last answer comes before its run's end; runs that a schedule made never begin
    while not all(run.end_time for run in client.read_flow_runs(limit=200) if run.start_time):
        assert time.monotonic() < until, "every run that has begun must end within a minute of the night"
        time.sleep(0.2)
    tasks = client.read_task_runs(limit=200)
    told = []
    for run in client.read_flow_runs(limit=200):
        night, _, stages = run.name.partition(": ")
        before = None
        for stage in stages.split(", "):
            done = answer_of(client, run.id, stage)
            if done is None or not done.ran:
                continue
            mine = [one for one in tasks if one.name == stage and one.end_time and one.start_time <= run.end_time]
            mine = max(mine, key=lambda one: one.start_time)
            told.append({
                "night": night, "stage": stage, "first": before is None, "began": done.began, "ended": done.ended,
                "taken": mine.end_time.timestamp(), "started": before or mine.start_time.timestamp(),
            })
            before = done.ended
print(json.dumps(told))
"""


def main() -> None:
    """Print a table and write ``results/dispatch.json``; exit with 1 where the median is over the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=at_least(1), default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stillhouse-dispatch-") as name:
        folder = Path(name)
        prefect, tracking = prefect_server(folder / "prefect").start(), mlflow_server(folder / "mlflow").start()
        pools = Pools(make_workspace(folder / "workspace", TINY), folder, prefect.url, tracking.url)
        try:
            pools.deploy()
            for pool in ("cpu", "gpu"):
                pools.start_worker(pool, pools.clone(pool))
            for night in range(given.nights):
                pools.run("run", "--as-of", f"2026-03-{night + 2:02}")
            rows: list[dict[str, Any]] = json.loads(pools.python(READ).splitlines()[-1])
        finally:
            pools.stop()
            tracking.kill()
            prefect.kill()
    for row in rows:
        row["before"], row["after"] = row["began"] - row["started"], row["taken"] - row["ended"]
        row["overhead"], row["work"] = row["before"] + row["after"], row["ended"] - row["began"]
    print(f"{'night':12} {'stage':22} {'work s':>8} {'before':>8} {'after':>8} {'overhead':>9}")
    for row in sorted(rows, key=lambda one: one["began"]):
        print(
            f"{row['night']:12} {row['stage']:22} {row['work']:8.1f} {row['before']:8.1f} {row['after']:8.1f} "
            f"{row['overhead']:9.1f}"
        )
    median = statistics.median(row["overhead"] for row in rows)
    first = statistics.median(row["overhead"] for row in rows if row["first"])
    print(f"median overhead of {len(rows)} stages: {median:.2f} s (target: {LIMIT:.0f} s)")
    print(f"of the {sum(row['first'] for row in rows)} for which a worker's run was started: {first:.2f} s")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dispatch.json").write_text(
        json.dumps({"median_overhead_s": median, "median_overhead_first_s": first, "stages": rows}, indent=1)
    )
    if median > LIMIT:
        sys.exit(f"over the target: {median:.2f} s a stage")


if __name__ == "__main__":
    main()
