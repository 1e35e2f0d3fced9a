"""What the drill looks at and lays hands on beside the command line: processes, runs, ledger and cache."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from _drill.clone import Drill

#: Seconds within which the run of a stage that lost its worker, or its server until that is back, must have ended.
LIMIT = 120.0


def run_at_work(drill: Drill, day: str) -> str:
    """Wait until the night trains its teacher, and return the id of that stage's run."""
    until = time.monotonic() + 300
    while (found := drill.run_named(f"{day}: train_teacher")) is None or found[1] != "Running":
        if time.monotonic() > until or (found and found[1] == "Completed"):
            raise RuntimeError(f"train_teacher was not met at work: {found}")
        time.sleep(0.2)
    return found[0]


def how_it_ended(drill: Drill, run: str, since: float) -> str:
    """Say how a stage's run ended, and whether within `LIMIT` of ``since``, of the monotonic clock."""
    state = drill.state(run, since + LIMIT - time.monotonic())
    took = time.monotonic() - since
    return f"{state} {'within 2 minutes' if took < LIMIT else f'after {took:.0f} s'}"


def process_of(drill: Drill, program: str) -> int:
    """Return the process of one of the stack's programs, once it answers; 0: it does not."""
    rows = [line.split() for line in drill.command("stack", "status", code=None).stdout.splitlines()]
    return next((int(row[2]) for row in rows if row[:2] == [program, "running"]), 0)


def when_back(drill: Drill, program: str, killed: int) -> float:
    """Return when the program ran again, and both servers, and so their database, answered."""
    until = time.monotonic() + 300
    while (asked := time.monotonic()) < until:
        # What a dead server leaves behind answers for a moment yet: its successor is waited for.
        with contextlib.suppress(OSError):
            if process_of(drill, program) not in (0, killed):
                drill.prefect("flow_runs/filter", {"limit": 1})
                drill.champion()
                return asked
        time.sleep(0.5)
    raise RuntimeError(f"{program} never came back")


def unmoved(drill: Drill, before: int | None) -> str:
    """Say whether the champion is the version that it was ``before``."""
    now = drill.champion()
    if now != before:
        return f"champion moved from {before} to {now}"
    return "no champion yet" if now is None else "champion unmoved"


def alert(drill: Drill, words: str, since: int) -> str:
    """Say whether an alert with ``words`` has come, the first ``since`` left out."""
    return "alert sent" if drill.alerted(words, since) else "no alert"


def kill_worker(drill: Drill, pool: str) -> None:
    """Kill the pool's worker, its flow runs and their stages at one blow."""
    words = ["worker", "start", "--pool", pool]
    for process in psutil.process_iter(["cmdline", "environ"]):
        with contextlib.suppress(psutil.Error):
            line = process.info["cmdline"] or []
            mine = str(drill.root) in (process.info["environ"] or {}).get("STILLHOUSE_WORKSPACE", "")
            if mine and any(line[at : at + 4] == words for at in range(len(line))):
                family = [process, *process.children(recursive=True)]
                for one in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGKILL)


def entry_text(drill: Drill, number: int, text: str | None = None) -> str:
    """Return the text of an entry of the ledger; ``text``: what is put in its place, without any of the rules."""
    code = (
        "import json, pathlib\n"
        "from stillhouse.tracking.store import connect\n"
        "client = connect(pathlib.Path.cwd()).client\n"
        f"before = client.get_model_version('student-ledger', '{number}').tags['entry.0']\n"
        f"now = {text!r}\n"
        f"now is None or client.set_model_version_tag('student-ledger', '{number}', 'entry.0', now)\n"
        "print(json.dumps(before))\n"
    )
    return str(drill.python(code))


def short_hash(text: str) -> str:
    """Return the hash of an entry's text as the ledger's findings show it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decision_of(drill: Drill, version: int) -> dict[str, Any]:
    """Return the gate's decision that the ledger names of a version."""
    entries = drill.history()["entries"]
    verdict = next(one["verdict"] for one in entries if one["version"] == version and one["verdict"])
    code = (
        "import json, pathlib\n"
        "from stillhouse.tracking.registry import version_of\n"
        "from stillhouse.tracking.runs import read_file\n"
        "from tasks.gate import decision_file\n"
        "root = pathlib.Path.cwd()\n"
        f"found = read_file(root, version_of(root, {version}).run_id, decision_file('{verdict}'))\n"
        "print(json.dumps(json.loads(found)))\n"
    )
    return dict(drill.python(code))


def days_of(drill: Drill, version: int) -> dict[str, str]:
    """Return day of interactions → MD5 of its file, of the snapshot that a version came from."""
    code = (
        "import json, pathlib\n"
        "from stillhouse.tracking.registry import read_statement\n"
        f"files = json.loads(read_statement(pathlib.Path.cwd(), {version}))['predicate']['files']['data/snapshot']\n"
        "print(json.dumps({name: md5 for name, md5 in files.items() if name.startswith('interactions/')}))\n"
    )
    return dict(drill.python(code))


def put_stray(root: Path) -> Path:
    """Put something into DVC's cache that nothing names, and return where it lies."""
    content = b"nobody knows where this came from"
    name = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def unreached(drill: Drill) -> int:
    """Return how many pieces of content in the cache ``gc --dry-run`` would free."""
    return sum(int(one["count"]) for one in drill.told("gc", "--dry-run")["freed"] if one["place"] == "cache")


def tags_of(root: Path) -> str:
    """Return a clone's tags, with what they name."""
    listed = subprocess.run(["git", "show-ref", "--tags"], cwd=root, capture_output=True, text=True, check=True)
    return listed.stdout
