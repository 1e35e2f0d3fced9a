"""A clone of this checkout with a whole stack of its own, and what it may be asked."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

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


def clone(place: Path, *, whole: bool) -> Drill:
    """Clone this checkout to ``place``; ``whole``: with params.yaml as it is, in place of small models."""
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
def receiver(drill: Drill) -> Iterator[str]:
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
def stack(drill: Drill, alerts: str) -> Iterator[None]:
    """Have the clone's stack at work, on free ports; its alerts go to the URL ``alerts``."""
    ports = {f"STILLHOUSE_{name}_PORT": str(_free_port()) for name in ("MLFLOW", "PREFECT")}
    try:
        drill.command("stack", "up", code=0, STILLHOUSE_ALERT_URLS=alerts, **ports)
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
