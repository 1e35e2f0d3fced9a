"""How long an audit takes over the records of a thousand nights: back from a student, and forward from a file of data.

One real night of the tiny shop is performed in a scratch clone. The nights after it are written as a night writes
itself (tags, records, registered versions, ledger entries), each with a day of data more, cold every seventh; their
content is the real night's. Then the commands are timed as a user gives them, whole processes. Prints a table and
writes ``benchmarks/results/audit.json``; exits with 1 where a median is over the limit.

    .venv/bin/python benchmarks/audit.py --nights 1000 --repeat 3 --work FOLDER
    .venv/bin/python benchmarks/audit.py --nights 1000 --repeat 3 --work FOLDER --served

With ``--served`` runs and models are kept by a real MLflow server, files through it, whose database and files lie in
FOLDER-server; results go to ``audit-served.json``. Nights that an earlier run has written are used again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from _peers.arguments import at_least

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from pools import mlflow_server

from stillhouse.lineage import statement
from stillhouse.lineage.entry import Entry, entry_hash
from stillhouse.runner.stage import STATE
from stillhouse.tracking import ledger_store, registry
from stillhouse.tracking.store import connect
from tasks import versions
from tasks.champion import ledger_entries
from tasks.graph import repository

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
BIN = Path(sys.executable).parent / "stillhouse"
#: Seconds that an audit may take.
LIMIT = 10.0
FIRST = datetime(2026, 3, 2, tzinfo=UTC)
#: What makes the real night cheap.
SMALL = {
    "source": {"shop": {"size": "tiny"}},
    "train_teacher": {"model": {"width": 16, "blocks": 1, "heads": 1, "length": 20}, "training": {"epochs": 2}},
    "train_student": {"training": {"epochs": 2}},
    "validate": {"min_rows": 100},
    "prepare": {"min_user_events": 2, "min_item_events": 2},
    "check_teacher": {"min_over_popularity": 0.0, "min_coverage": 0.0},
    "gate": {"min_over_popularity": 0.0, "min_ndcg_at_10": 0.0, "max_p99_ms": 1000.0},
}
STUDENT = {
    "small": {"model": {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.1}}
}


def merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``document`` with ``changes`` laid over it, section by section."""
    both = {
        name: merged(document[name], to) for name, to in changes.items() if isinstance(to, dict) and name in document
    }
    return {**document, **changes, **both}


@contextlib.contextmanager
def tracking(work: Path, *, served: bool) -> Iterator[None]:
    """Keep runs and models in the workspace, or on a server that is up meanwhile."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if not served:
        yield
        return
    server = mlflow_server(work.with_name(f"{work.name}-server")).start()
    try:
        os.environ["MLFLOW_TRACKING_URI"] = server.url
        yield
    finally:
        server.kill()


def real_night(work: Path) -> None:
    """Perform one night in a clone of the checkout at ``work``."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(work)], check=True)
    params = work / "params.yaml"
    document = merged(yaml.safe_load(params.read_text()), SMALL) | {"students": STUDENT}
    params.write_text(yaml.safe_dump(document, sort_keys=False))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(work / "src"), str(work)])}
    subprocess.run([str(BIN), "run"], cwd=work, env=environment, check=True, capture_output=True)


def further_nights(work: Path, count: int) -> None:
    """Write nights until there are ``count``, each after the last."""
    first = registry.version_of(work, 1)
    real = json.loads(registry.read_statement(work, 1))["predicate"]
    files = dict(real["files"]["data/snapshot"])
    package = work / "packages" / "small"
    subjects = statement.subjects(package)
    there = versions.nights(work, versions.CLOSED)
    for number in range(1, len(there)):
        files |= new_day(number)
    last_entry = ledger_entries(work)[-1]
    head, verdict = last_entry.hash, last_entry.entry.verdict
    for number in range(len(there), count):
        began = time.monotonic()
        files |= new_day(number)
        before, name = there[-1], f"{FIRST + timedelta(days=number):%Y-%m-%d}"
        night = real["night"] | {"id": name, "as_of": (FIRST + timedelta(days=number)).isoformat(), "previous": before}
        night |= {"cold": number % 7 == 0, "champion": number}
        night = {key: value for key, value in night.items() if key not in ("tag", "commit")}
        (work / "night.yaml").write_text(yaml.safe_dump(night, sort_keys=True))
        tagged = ("night.yaml", "previous.dvc", versions.LOCK)
        commit = versions.tag_night(work, name, versions.OPEN, f"Night {name}, opened", tagged)
        tag, last = f"night/{name}/open", versions.tag_commit(work, before, versions.CLOSED)
        ancestor = {"night": before, "tag": f"night/{before}/closed", "commit": last, "cold": night["cold"]}
        predicate = real | {"night": night | {"tag": tag, "commit": commit}, "ancestor": ancestor}
        predicate["files"] = {"data/snapshot": files}
        record = statement.canonical(statement.build(subjects, predicate))
        version = registry.register_student(
            work,
            package,
            night=name,
            name="small",
            digest=first.package,
            statement=record,
            card="# small\n",
            metrics={"ndcg": 0.1},
            verdict="passed",
            reason="every rule passed",
            histories=[["i1"]],
            run_id=first.run_id,
        )
        entry = Entry(
            kind="promoted",
            key=f"gate:{name}:{version}",
            night=name,
            version=version,
            name="small",
            package=first.package,
            statement=statement.digest(record),
            verdict=verdict,
            replaces=version - 1,
            reason="every rule passed",
            actor="gate",
            time=night["as_of"],
            previous=head,
        )
        ledger_store._put(connect(work), entry.text)  # appending would read the whole ledger each time
        head = entry_hash(entry.text)
        versions.tag_night(work, name, versions.CLOSED, versions.closing_message(name, head), tagged)
        there.append(name)
        if number % 50 == 0:
            print(f"night {number} of {count}, {time.monotonic() - began:.2f} s a night", file=sys.stderr, flush=True)


def new_day(number: int) -> dict[str, str]:
    """Return the file that the snapshot gets with a night: name → MD5."""
    name = f"interactions/{FIRST + timedelta(days=number):%Y-%m-%d}.new.parquet"
    return {name: hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()}


def timed(work: Path, *arguments: str) -> float:
    """Return the seconds of one command."""
    began = time.perf_counter()
    subprocess.run([str(BIN), *arguments], cwd=work, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Make the nights where they are not there, time the commands, report medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=at_least(1), default=1000, help="nights to have (default: 1000)")
    parser.add_argument("--repeat", type=at_least(1), default=3, help="times that each command is timed (default: 3)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the workspace; made, or used again")
    parser.add_argument("--served", action="store_true", help="a real MLflow server keeps runs, models and their files")
    options = parser.parse_args()
    work = options.work.resolve()
    with tracking(work, served=options.served):
        if not work.exists():
            real_night(work)
        os.chdir(work)
        with repository(work):
            pass  # a workspace that DVC can work in, or one line that says why not
        further_nights(work, options.nights)
        found = measured(work, options.nights, options.repeat)
        entries = len(ledger_entries(work))
    RESULTS.mkdir(exist_ok=True)
    result = {"nights": options.nights, "entries": entries, "commands": found, "limit": LIMIT}
    name = "audit-served.json" if options.served else "audit.json"
    (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n")
    late = [label for label, one in found.items() if one["median"] > LIMIT]
    if late:
        sys.exit(f"over the limit: {', '.join(late)}")


def measured(work: Path, nights: int, repeat: int) -> dict[str, dict[str, Any]]:
    """Time each command, print the medians and return them."""
    day = next(iter(new_day(nights // 2).values()))
    commands = {
        "audit of the champion": ("audit", "champion"),
        "audit of a version, by number": ("audit", str(nights)),
        "forward, records not at hand yet": ("audit", "--data", day),
        "forward, again": ("audit", "--data", day),
        "history": ("history", "-n", "20"),
    }
    found: dict[str, dict[str, Any]] = {}
    shutil.rmtree(work / STATE / "records", ignore_errors=True)  # as an earlier run of this program left them
    for label, arguments in commands.items():
        times = [timed(work, *arguments) for _ in range(1 if "not at hand" in label else repeat)]
        found[label] = {"seconds": times, "median": statistics.median(times)}
        print(f"{label:<36} {statistics.median(times):6.1f} s   (limit {LIMIT:.0f} s)", flush=True)
    return found


if __name__ == "__main__":
    main()
