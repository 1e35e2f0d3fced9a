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
import base64
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
START = date(2026, 3, 2)

#: Seconds within which the run of a stage that lost its worker, or its server until that is back, must have ended.
LIMIT = 120.0
#: Seconds within which a night that holds nothing new must have said so.
NOTHING = 20.0

#: What makes a night cheap: small models, few epochs. `--whole` takes params.yaml as it is.
SMALL: dict[str, Any] = {
    "night.cold_every": 0,  # two epochs from nothing would be refused beside a champion of eight nights, and rightly
    "train_teacher.model": {"kind": "transformer", "width": 16, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.1},
    "train_teacher.training.epochs": 3,
    "train_teacher.training.warm_epochs": 2,
    "train_student.training.epochs": 2,
    "train_student.training.warm_epochs": 1,
    "students": {
        "small": {"model": {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.1}}
    },
    "check_teacher.min_over_popularity": 0.0,
    "check_teacher.max_drop": 1.0,
    "check_teacher.min_coverage": 0.0,
    "evaluate.latency_requests": 20,
    "gate.min_over_popularity": 0.0,
    "gate.min_ndcg_at_10": 0.0,
    # A day's window is some 150 users: of students as weak as these it tells at 95 % who lost most of it, not 2 %.
    "gate.margin": 0.7,
    "gate.reference_margin": 0.7,
    "gate.slices.margin": 0.9,
    "gate.max_p99_ms": 1000.0,
}

#: A type of event that is not listed is a bad row: far more of them than admit.max_quarantined bears.
BAD_DATA = {"event_weights": {"view": 0.4}}

#: A student that can hardly learn, before a gate that concedes nothing.
WORSE = {
    "students": {
        "small": {"model": {"kind": "transformer", "width": 4, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.9}}
    },
    "gate.against_champion": "superiority",
    "gate.confidence": 0.999,
}


@dataclass
class Step:
    """One thing that was tried: what had to come of it, and what came."""

    night: str
    what: str
    expected: str
    happened: str = "-"
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether it came as it had to."""
        return self.expected == self.happened


@dataclass
class Drill:
    """A clone with a stack of its own."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def command(self, *words: str, code: int | None = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run ``stillhouse`` in the clone."""
        done = subprocess.run(
            [str(BIN / "stillhouse"), *words],
            cwd=self.root,
            env={**self.environment, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        if code is not None and done.returncode != code:
            raise RuntimeError(f"stillhouse {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def python(self, code: str) -> Any:
        """Run code in the clone and return the JSON that it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def set(self, values: dict[str, Any]) -> None:
        """Change settings in params.yaml."""
        path = self.root / "params.yaml"
        document = yaml.safe_load(path.read_text())
        for dotted, value in values.items():
            *parents, last = dotted.split(".")
            section = document
            for key in parents:
                section = section[key]
            section[last] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    @contextlib.contextmanager
    def settings(self, values: dict[str, Any]) -> Iterator[None]:
        """Change settings for a while."""
        path = self.root / "params.yaml"
        before = path.read_text()
        self.set(values)
        try:
            yield
        finally:
            path.write_text(before)

    def told(self, *words: str) -> Any:
        """Return what ``stillhouse ... --json`` prints."""
        return json.loads(self.command(*words, "--json").stdout)

    def history(self) -> dict[str, Any]:
        """Return what the ledger adds up to."""
        return dict(self.told("history"))

    def champion(self) -> int | None:
        """Return the version that whoever serves is given: what the alias says. A server that is away is waited for.

        Raises:
            RuntimeError: MLflow refuses the question, for another reason than that there is no champion.
        """
        account = f"{self.environment['MLFLOW_TRACKING_USERNAME']}:{self.environment['MLFLOW_TRACKING_PASSWORD']}"
        address = f"{self.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/registered-models/alias"
        until = time.monotonic() + 60
        while True:
            try:
                found = _asked(f"{address}?name=student&alias=champion", account)
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:  # else it is away, or its database
                    _require_none(error)
                    return None
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)
            else:
                return int(found["model_version"]["version"])

    def prefect(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask Prefect's server; ``body``: what is posted."""
        return _asked(
            f"{self.environment['PREFECT_API_URL']}/{path}", self.environment["PREFECT_API_AUTH_STRING"], body
        )

    def night(self, day: str, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Start the scheduled night of ``day``, let something happen meanwhile, and return how its run ended."""
        deployment = self.prefect("deployments/name/scheduled/nightly")["id"]
        run = self.prefect(f"deployments/{deployment}/create_flow_run", {"parameters": {"as_of": day}})["id"]
        meanwhile()
        return self.state(run, 900)

    def state(self, run: str, patience: float) -> str:
        """Wait until a flow run has ended and return its state's name; a server that is away is waited for."""
        until, state = time.monotonic() + patience, "nobody knows"
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                found = self.prefect(f"flow_runs/{run}")["state"]
                state = found["name"]
                if found["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                    break
            time.sleep(1.0)
        return str(state)

    def run_named(self, name: str) -> tuple[str, str] | None:
        """Return id and state of the first flow run whose name holds ``name``, if there is one."""
        body = {"flow_runs": {"name": {"like_": name}}, "sort": "START_TIME_ASC"}
        found = self.prefect("flow_runs/filter", body)
        return (found[0]["id"], found[0]["state_name"]) if found else None

    def idle(self, patience: float) -> bool:
        """Say whether every flow run comes to its end in time; one that does holds no slot."""
        until = time.monotonic() + patience
        body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if not self.prefect("flow_runs/filter", body):
                    return True
            time.sleep(1.0)
        return False

    @contextlib.contextmanager
    def step(self, night: str, what: str, expected: str) -> Iterator[Step]:
        """Try something; what it came to is told at once, and in the table."""
        one = Step(night, what, expected)
        started = time.monotonic()
        try:
            yield one
        except Exception as error:  # the table tells it, and the drill goes on
            one.happened = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
        one.seconds = time.monotonic() - started
        self.steps.append(one)
        print(
            f"{'held' if one.held else 'NOT HELD':9} {night}  {what}: {one.happened}  ({one.seconds:.0f} s)", flush=True
        )

    def alerted(self, words: str, since: int, patience: float = 90.0) -> bool:
        """Say whether an alert with ``words`` has come since."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if any(words in json.dumps(one) for one in self.alerts[since:]):
                return True
            time.sleep(0.5)
        return False


def _asked(url: str, account: str, body: dict[str, Any] | None = None) -> Any:
    """Return a server's answer; ``account``: name and password, with a colon between them."""
    token = base64.b64encode(account.encode()).decode()
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _require_none(error: urllib.error.HTTPError) -> None:
    """Take it that nothing has the alias, or that there is no student yet, where MLflow says just that.

    Raises:
        RuntimeError: it says something else.
    """
    said = error.read().decode()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(said)
        if (answer["error_code"], answer["message"]) in {
            ("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=student not found"),
            ("INVALID_PARAMETER_VALUE", "Registered model alias champion not found."),
        }:
            return
    raise RuntimeError(f"MLflow answered {error.code}: {said}")


def ordinary(drill: Drill, day: str) -> None:
    """A night on which nothing happens."""
    with drill.step(day, "an ordinary night", "Completed, its student promoted") as step:
        before = drill.champion()
        ended = drill.night(day)
        moved = drill.champion() != before
        step.happened = f"{ended}, {'its student promoted' if moved else 'nothing promoted'}"


def bad_data(drill: Drill, day: str) -> None:
    """A night whose rows are mostly bad."""
    with drill.step(day, "bad data", "Failed, champion unmoved, alert sent") as step, drill.settings(BAD_DATA):
        before, since = drill.champion(), len(drill.alerts)
        ended = drill.night(day)
        step.happened = f"{ended}, {_unmoved(drill, before)}, {_alert(drill, 'quarantine', since)}"


def worse_student(drill: Drill, day: str) -> None:
    """A night whose student is worse than the champion."""
    with drill.step(day, "a worse student", "Completed, refused, champion unmoved, alert sent") as step:
        before, since = drill.champion(), len(drill.alerts)
        with drill.settings(WORSE):
            ended = drill.night(day)
        last = drill.history()["entries"][-1]
        step.happened = (
            f"{ended}, {'refused' if last['kind'] == 'refused' else last['kind']}, {_unmoved(drill, before)}, "
            f"{_alert(drill, 'gate', since)}"
        )


def killed_worker(drill: Drill, day: str) -> None:
    """A night whose GPU worker dies with the stage that it performs."""
    champion = "no champion yet" if day == str(START) else "champion unmoved"
    expected = f"the stage's run Crashed within 2 minutes, {champion}, the night Completed, its student promoted"
    with drill.step(day, "the GPU worker and its stage killed", expected) as step:
        before, seen = drill.champion(), list[str]()

        def kill() -> None:
            run = _at_work(drill, day)
            _kill_worker(drill, "gpu")
            seen.extend([_over(drill, run, time.monotonic()), _unmoved(drill, before)])

        ended = drill.night(day, kill)
        moved = "its student promoted" if drill.champion() != before else "nothing promoted"
        step.happened = f"the stage's run {', '.join(seen)}, the night {ended}, {moved}"


def awaiting(drill: Drill, day: str) -> None:
    """A night whose student waits for a person, who approves it, and then thinks better of it."""
    since = len(drill.alerts)
    with drill.step(day, "gate.mode: approve", "Completed, awaiting, champion unmoved") as step:
        before = drill.champion()
        with drill.settings({"gate.mode": "approve", "alerts.max_quarantined": 1e-6}):
            ended = drill.night(day)
        waiting = drill.history()["awaiting"]
        step.happened = f"{ended}, {'awaiting' if waiting else 'nobody waits'}, {_unmoved(drill, before)}"
    with drill.step(day, "rows in quarantine above the level", "alert sent") as step:
        step.happened = _alert(drill, "of the rows are in quarantine", since)
    with drill.step(day, "a champion of months ago", "Completed, alert sent") as step:
        deployment = drill.prefect("deployments/name/watch/watch")["id"]
        run = drill.prefect(f"deployments/{deployment}/create_flow_run", {})["id"]
        step.happened = f"{drill.state(run, 120)}, {_alert(drill, 'The champion is', since)}"
    with drill.step(day, "stillhouse approve", "the one that waited is champion") as step:
        drill.command("approve", "--reason", "the drill", "--actor", "drill")
        step.happened = "the one that waited is champion" if drill.champion() == waiting else "another is champion"
    with drill.step(day, "stillhouse rollback", "the champion before is back") as step:
        drill.command("rollback", "--reason", "the drill", "--actor", "drill")
        step.happened = "the champion before is back" if drill.champion() == before else "it is not"


def tampered(drill: Drill, day: str) -> None:
    """An entry of the ledger edited by somebody with access to the registry, found, and put back."""
    expected = "audit, run and promote refuse and name it, champion unmoved"
    with drill.step(day, "a ledger entry edited", expected) as step:
        told = drill.history()
        entry = next(one for one in told["entries"] if one["kind"] == "promoted")
        champion = told["champion"]["version"]
        # Of one that the gate had before it nothing else stands in the way: afterwards it is promoted.
        other = max(one["version"] for one in told["entries"] if one["version"] != champion)
        promote = ["promote", str(other), "--override-gate", "--reason", "the drill", "--actor", "drill"]
        text = _entry(drill, entry["number"])
        forged = text.replace('"actor":"gate"', '"actor":"nobody"')
        hashes = f"its text hashes to {_short(forged)}, it was written as {_short(text)}"
        words = f"entry {entry['number']} was altered: {hashes}"
        try:
            _entry(drill, entry["number"], forged)
            tries = (["audit", str(champion)], ["run", "--as-of", day, "--force"], promote)
            refused = [drill.command(*one, code=None) for one in tries]
            named = [one.returncode != 0 and words in " ".join(f"{one.stdout} {one.stderr}".split()) for one in refused]
            told_of = "audit, run and promote refuse and name it" if all(named) else f"{named}"
            step.happened = f"{told_of}, {_unmoved(drill, champion)}"
        finally:
            _entry(drill, entry["number"], text)
    with drill.step(day, "the entry put back", "every link verified, and that promotion done") as step:
        done = drill.command("audit", str(champion), code=None)
        drill.command(*promote)
        whole = "every link verified" if done.returncode == 0 else done.stdout[-300:]
        step.happened = f"{whole}, and {'that promotion done' if drill.champion() == other else 'another is champion'}"


def lost(program: str) -> Callable[[Drill, str], None]:
    """Return what kills one of the stack's servers in the middle of a night."""

    def happens(drill: Drill, day: str) -> None:
        expected = (
            "champion unmoved, the stage's run over within 2 minutes of its return, "
            "Completed at the latest at the second attempt, its student promoted, nothing left at work"
        )
        with drill.step(day, f"{program} killed in mid-night", expected) as step:
            before, seen = drill.champion(), list[str]()

            def kill() -> None:
                run = _at_work(drill, day)
                pid = _pid(drill, program)
                os.kill(pid, signal.SIGKILL)
                returned = _back(drill, program, pid)
                seen.append(_unmoved(drill, before))
                over = _over(drill, run, returned)
                limit = "within 2 minutes"
                seen.append(f"the stage's run {'over ' + limit if over.endswith(limit) else over} of its return")

            ended = drill.night(day, kill)
            if ended != "Completed":
                ended = drill.night(day)
            moved = "its student promoted" if drill.champion() != before else "nothing promoted"
            idle = "nothing left at work" if drill.idle(120) else "runs left at work"
            step.happened = f"{', '.join(seen)}, {ended} at the latest at the second attempt, {moved}, {idle}"

    happens.__name__ = f"lost_{program}"
    return happens


def a_persons_commands(drill: Drill, day: str) -> None:
    """What a person asks and decides beside a stack at work, of which the next night must not notice anything."""
    champion = waiting = first = 0
    with drill.step(day, "a night that waits, and its decision", "Completed, against the first champion too") as step:
        with drill.settings({"gate.mode": "approve"}):
            ended = drill.night(day)
        told = drill.history()
        champion, waiting = told["champion"]["version"], told["awaiting"]
        first = next(one["version"] for one in told["entries"] if one["kind"] == "promoted")
        decision = _decision(drill, waiting)
        rule = next(one for one in decision["verdicts"][0]["rules"] if one["name"] == "reference")
        known = (decision["champion"], decision["reference"]) == (champion, first) and rule["value"] is not None
        step.happened = f"{ended}, {'against the first champion too' if known else f'against {decision}'}"
    with drill.step(day, "stillhouse reject", "turned down by drill, champion unmoved") as step:
        drill.command("reject", "--reason", "the drill", "--actor", "drill")
        told = drill.history()
        last = told["entries"][-1]
        said = (last["kind"], last["version"], last["reason"], told["awaiting"])
        right = said == ("rejected", waiting, "the drill", None)
        step.happened = f"{'turned down' if right else last['kind']} by {last['actor']}, {_unmoved(drill, champion)}"
    with drill.step(day, "stillhouse compare", "both, on the same users, under both protocols") as step:
        found = drill.told("compare", str(champion), str(waiting))
        sides = [found[side]["version"] for side in ("first", "second")] == [champion, waiting]
        paired = {
            one["protocol"]
            for one in found["differences"]
            if one["users"] > 0 and one["low"] - 1e-9 <= one["second"] - one["first"] <= one["high"] + 1e-9
        }
        right = sides and paired == {"leave_one_out", "time_window"}
        step.happened = "both, on the same users, under both protocols" if right else json.dumps(found["differences"])
    with drill.step(day, "stillhouse promote", "the first one is champion, by drill") as step:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        time.sleep(1.1)  # the ledger's times are whole seconds
        drill.command("promote", str(first), "--reason", "the drill", "--actor", "drill")
        entry = drill.history()["champion"]
        right = drill.champion() == first == entry["version"] != champion
        step.happened = f"the {'first' if right else 'wrong'} one is champion, by {entry['actor']}"
    with drill.step(
        day, "stillhouse history --at", "then the champion of then, now the first, before it all none"
    ) as step:
        then, before = (drill.told("history", "--at", when)["champion"] for when in (at, "2020-01-01 12:00"))
        now = drill.history()["champion"]["version"]
        right = (then["version"], now, before) == (champion, first, None)
        step.happened = (
            "then the champion of then, now the first, before it all none" if right else f"{then}, {now}, {before}"
        )
    _traced(drill, day, champion, waiting)
    _kept(drill, day, champion)


def _traced(drill: Drill, day: str, version: int, newest: int) -> None:
    """What a person asks of a version: who vouches for it, what it came from, whether it can be made again."""
    with drill.step(day, "whose signature", "ours, every link verified; to a stranger nobody's") as step:
        words = ("audit", f"student@{version}", "--require-signature")
        whole = drill.told(*words)["whole"]
        stranger = drill.command(*words, code=None, STILLHOUSE_SIGNING_KEY="", STILLHOUSE_VERIFY_KEYS="")
        refused = stranger.returncode == 1 and "must be signed by a trusted key" in stranger.stderr
        step.happened = (
            f"{'ours, every link verified' if whole else 'broken'}; to a stranger {'nobody' if refused else 'some'}'s"
        )
    with drill.step(
        day, "stillhouse audit --data", "the first day reached every student, the last one tonight's"
    ) as step:
        days = _days(drill, newest)  # some of them, by mistakes of the shop's, in years to come
        oldest, latest = (
            [one["version"] for one in drill.told("audit", "--data", days[name])]
            for name in (min(days), f"interactions/{date.fromisoformat(day) - timedelta(days=1)}.parquet")
        )
        right = oldest == sorted({one["version"] for one in drill.history()["entries"]}) and latest == [newest]
        step.happened = (
            "the first day reached every student, the last one tonight's" if right else f"{oldest}, {latest}"
        )
    with drill.step(day, "stillhouse reproduce", "every output identical, or not by nature") as step:
        found = json.loads(drill.command("reproduce", f"student@{version}", "--json", code=None).stdout)
        differ = [one["path"] for one in found["outputs"] if one["state"] == "differs"]
        count = sum(one["state"] == "identical" for one in found["outputs"])
        right = found["identical"] and not differ and count >= 10
        step.happened = "every output identical, or not by nature" if right else f"{count} identical; {differ} differ"


def _kept(drill: Drill, day: str, version: int) -> None:
    """What a person does beside the live line must leave it as it stands."""
    with drill.step(day, "stillhouse gc", "a stray named, then freed, every link verified") as step:
        before = _unreached(drill)
        stray = _stray(drill.root)
        named = _unreached(drill) == before + 1 and stray.exists()
        drill.command("gc")
        gone = not stray.exists() and _unreached(drill) == 0
        done = drill.command("audit", str(version), code=None)
        step.happened = (
            f"a stray {'named' if named else 'overlooked'}, then {'freed' if gone else 'kept'}, "
            f"{'every link verified' if done.returncode == 0 else done.stdout[-300:]}"
        )
    with drill.step(day, "stillhouse backfill", "closed, the live ledger, tags and champion unmoved") as step:
        champion, entries, tags = drill.champion(), drill.history()["entries"], _tags(drill.root)
        found = drill.told("backfill", "--from", "2026-02-20", "--to", "2026-02-20")
        same = (drill.history()["entries"], _tags(drill.root)) == (entries, tags)
        step.happened = (
            f"{', '.join(one['state'] for one in found['nights'])}, "
            f"the live {'ledger, tags and' if same else 'line moved,'} {_unmoved(drill, champion)}"
        )


def lost_machine(drill: Drill, day: str) -> None:
    """The stack of before the night comes back from its backup; the night, which the backup never saw, is run again."""
    backup = drill.root.parent / "stack.tar"
    with drill.step(day, "make backup, then a night", "Completed, its student promoted") as step:
        before = drill.champion()
        drill.command("stack", "backup", str(backup))
        ended = drill.night(day)
        moved = drill.champion() != before
        step.happened = f"{ended}, {'its student promoted' if moved else 'nothing promoted'}"
    with drill.step(day, "the stack lost, make restore", "champion of the backup, every link verified") as step:
        drill.command("stack", "down")
        shutil.rmtree(drill.root / ".stillhouse" / "stack")
        drill.command("stack", "restore", str(backup))
        drill.command("stack", "up")
        whole = drill.command("audit", "student@champion", code=None)
        champion = "champion of the backup" if drill.champion() == before else "another champion"
        step.happened = f"{champion}, {'every link verified' if whole.returncode == 0 else whole.stdout[-300:]}"
    with drill.step(day, "the night that the backup never saw", "Completed, its student promoted") as step:
        ended = drill.night(day)
        step.happened = f"{ended}, {'its student promoted' if drill.champion() != before else 'nothing promoted'}"


def nothing_new(drill: Drill, day: str) -> None:
    """The same night once more, twice at once."""
    expected = "Cancelled and Completed, in seconds, ledger unmoved"
    with drill.step(day, "the same night again, twice at once", expected) as step:
        before = len(drill.history()["entries"])
        other: list[str] = []
        started = time.monotonic()
        first = drill.night(day, lambda: other.append(drill.night(day)))
        took = time.monotonic() - started
        same = len(drill.history()["entries"]) == before
        step.happened = (
            f"{' and '.join(sorted([first, *other]))}, {'in seconds' if took < NOTHING else f'after {took:.0f} s'}, "
            f"{'ledger unmoved' if same else 'new entries'}"
        )


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


def _at_work(drill: Drill, day: str) -> str:
    """Wait until the night trains its teacher, and return the id of that stage's run."""
    until = time.monotonic() + 300
    while (found := drill.run_named(f"{day}: train_teacher")) is None or found[1] != "Running":
        if time.monotonic() > until or (found and found[1] == "Completed"):
            raise RuntimeError(f"train_teacher was not met at work: {found}")
        time.sleep(0.2)
    return found[0]


def _over(drill: Drill, run: str, since: float) -> str:
    """Say how a stage's run ended, and whether within `LIMIT` of ``since``, of the monotonic clock."""
    state = drill.state(run, since + LIMIT - time.monotonic())
    took = time.monotonic() - since
    return f"{state} {'within 2 minutes' if took < LIMIT else f'after {took:.0f} s'}"


def _pid(drill: Drill, program: str) -> int:
    """Return the process of one of the stack's programs, once it answers; 0: it does not."""
    rows = [line.split() for line in drill.command("stack", "status", code=None).stdout.splitlines()]
    return next((int(row[2]) for row in rows if row[:2] == [program, "running"]), 0)


def _back(drill: Drill, program: str, killed: int) -> float:
    """Return when the program ran again, and both servers, and so their database, answered."""
    until = time.monotonic() + 300
    while (asked := time.monotonic()) < until:
        # What a dead server leaves behind answers for a moment yet: its successor is waited for.
        with contextlib.suppress(OSError):
            if _pid(drill, program) not in (0, killed):
                drill.prefect("flow_runs/filter", {"limit": 1})
                drill.champion()
                return asked
        time.sleep(0.5)
    raise RuntimeError(f"{program} never came back")


def _unmoved(drill: Drill, before: int | None) -> str:
    now = drill.champion()
    if now != before:
        return f"champion moved from {before} to {now}"
    return "no champion yet" if now is None else "champion unmoved"


def _alert(drill: Drill, words: str, since: int) -> str:
    return "alert sent" if drill.alerted(words, since) else "no alert"


def _kill_worker(drill: Drill, pool: str) -> None:
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


def _entry(drill: Drill, number: int, text: str | None = None) -> str:
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


def _short(text: str) -> str:
    """Return the hash of an entry's text as the ledger's findings show it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _decision(drill: Drill, version: int) -> dict[str, Any]:
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


def _days(drill: Drill, version: int) -> dict[str, str]:
    """Return day of interactions → MD5 of its file, of the snapshot that a version came from."""
    code = (
        "import json, pathlib\n"
        "from stillhouse.tracking.registry import read_statement\n"
        f"files = json.loads(read_statement(pathlib.Path.cwd(), {version}))['predicate']['files']['data/snapshot']\n"
        "print(json.dumps({name: md5 for name, md5 in files.items() if name.startswith('interactions/')}))\n"
    )
    return dict(drill.python(code))


def _stray(root: Path) -> Path:
    """Put something into DVC's cache that nothing names, and return where it lies."""
    content = b"nobody knows where this came from"
    name = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _unreached(drill: Drill) -> int:
    """Return how many pieces of content in the cache ``gc --dry-run`` would free."""
    return sum(int(one["count"]) for one in drill.told("gc", "--dry-run")["freed"] if one["place"] == "cache")


def _tags(root: Path) -> str:
    listed = subprocess.run(["git", "show-ref", "--tags"], cwd=root, capture_output=True, text=True, check=True)
    return listed.stdout


def _clone(place: Path, *, whole: bool) -> Drill:
    subprocess.run(["git", "clone", "-q", "--no-tags", str(ROOT), str(place)], check=True)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "STILLHOUSE_"))
    }
    drill = Drill(
        place.resolve(),
        {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{place / 'src'}{os.pathsep}{place}",
            "STILLHOUSE_WORKSPACE": str(place.resolve()),
            "STILLHOUSE_SIGNING_KEY": _signing_key(),
        },
    )
    if not whole:
        drill.set(SMALL)
    return drill


def _signing_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@contextlib.contextmanager
def _receiver(drill: Drill) -> Iterator[str]:
    """Listen for alerts; yields the URL that Apprise is to send them to."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            drill.alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://127.0.0.1:{server.server_address[1]}/alerts"
    finally:
        server.shutdown()


@contextlib.contextmanager
def _stack(drill: Drill, alerts: str) -> Iterator[None]:
    ports = {f"STILLHOUSE_{name}_PORT": str(_free_port()) for name in ("MLFLOW", "PREFECT")}
    try:
        drill.command("stack", "up", STILLHOUSE_ALERT_URLS=alerts, **ports)
        listed = subprocess.run(
            ["sh", "-c", ". .stillhouse/stack/env && env -0"],
            cwd=drill.root,
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = ("MLFLOW_", "PREFECT_")
        pairs = (line.split("=", 1) for line in listed.stdout.split("\0") if line.startswith(wanted))
        drill.environment.update(dict(pairs))
        yield
    finally:
        drill.command("stack", "down", code=None)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
    drill = _clone(place, whole=given.whole)
    started = time.monotonic()
    try:
        with _receiver(drill) as alerts, _stack(drill, alerts):
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
