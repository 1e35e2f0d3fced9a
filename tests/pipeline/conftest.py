"""Workspaces for whole nights, made once a session and copied for each test."""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
from keys import new_keys
from workspaces import TINY, Workspace, clone, make_workspace


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Give a function that makes a workspace once for all test processes: ``once(name, make)`` → (workspace, notes).

    ``make`` gets the path and returns the workspace's notes, plain data.
    """
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent

    def workspace(name, make):
        root, ready = shared / name, shared / f"{name}.ready"
        with filelock.FileLock(f"{root}.lock"):
            if not ready.exists():
                shutil.rmtree(root, ignore_errors=True)
                ready.write_text(json.dumps(make(root)))
        return Workspace(root.resolve()), json.loads(ready.read_text())

    return workspace


@pytest.fixture(scope="session")
def first_night(once):
    def make(root):
        return make_workspace(root, TINY).run("run").out

    return once("template", make)


@pytest.fixture(scope="session")
def template(first_night):
    """A workspace in which one tiny night has closed."""
    return first_night[0]


@pytest.fixture
def first_table(first_night):
    """What the template's night printed."""
    return first_night[1]


@pytest.fixture(scope="session")
def second(once, template):
    """A workspace whose second night has closed, signed, with dirty code and a stray file in it.

    ``key``: file of the public key. ``before`` and ``after`` the run: git's status and params.yaml.
    ``printed``: what it printed.
    """

    def make(root):
        workspace = clone(template, root)
        (workspace.root / "src/stillhouse/extra.py").write_text('"""New."""\n')
        (workspace.root / "stray.csv").write_text("data that is nobody's business\n")
        workspace.set({"gate.seed": 18})

        def seen():
            status = subprocess.run(
                ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True
            )
            return [status.stdout, (root / "params.yaml").read_text()]

        before = seen()
        private, public = new_keys()
        Path(f"{root}.pem").write_bytes(public)
        printed = workspace.run("run", "--as-of", "2026-03-03", env={"STILLHOUSE_SIGNING_KEY": private.decode()}).out
        return {"printed": printed, "before": before, "after": seen(), "key": f"{root}.pem"}

    workspace, notes = once("second", make)
    return SimpleNamespace(workspace=workspace, **notes)


@pytest.fixture
def closed(template, tmp_path, prefect_server):
    """A copy of the workspace in which one tiny night has closed, with a Prefect server that runs already.

    It saves each run the start of a server of its own, which is what `template`, `second` and `fresh` have.
    """
    return clone(template, tmp_path / "workspace", prefect_server)


@pytest.fixture
def fresh(tmp_path):
    """A workspace in which no night has run, on the tiny shop."""
    return make_workspace(tmp_path / "fresh", TINY)


@pytest.fixture(scope="session")
def prefect_home(once, tmp_path_factory):
    """Give a function that makes a home of Prefect's with its tables, which take a server most of its first start."""

    def make(root):
        root.mkdir()
        command = [str(Path(sys.executable).parent / "prefect"), "server", "database", "upgrade", "-y"]
        subprocess.run(command, env={**os.environ, "PREFECT_HOME": str(root)}, check=True, capture_output=True)

    def home(name):
        made, _ = once("prefect-tables", make)
        target = tmp_path_factory.mktemp(name)
        with (  # a copy of the file alone may lack what its log holds
            contextlib.closing(sqlite3.connect(made.root / "prefect.db")) as tables,
            contextlib.closing(sqlite3.connect(target / "prefect.db")) as copy,
        ):
            tables.backup(copy)
        return target

    return home


@pytest.fixture(scope="session")
def prefect_server(prefect_home):
    """A Prefect server of this test process, which saves each run the start of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = prefect_home("prefect")
    quiet = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    quiet["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"  # as `stillhouse run` starts its own
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "prefect"),
                "server",
                "start",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            env={**os.environ, **quiet},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health"):
                break
            assert server.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)
