"""Workspaces for whole nights, made once a session and copied for each test."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
from keys import new_keys
from pools import prefect_server as server_of_its_own
from workspaces import BIN, TINY, Workspace, clone, make_workspace


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
def first_night(once, prefect_server):
    def make(root):
        workspace = make_workspace(root, TINY)
        workspace.server = prefect_server
        return workspace.run("run").out

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
def second(once, template, prefect_server):
    """A workspace whose second night has closed, signed, with dirty code and a stray file in it.

    ``key``: file of the public key. ``before`` and ``after`` the run: git's status and params.yaml.
    ``printed``: what it printed.
    """

    def make(root):
        workspace = clone(template, root, prefect_server)
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
    """A copy of the workspace in which one tiny night has closed, with a Prefect server that runs already."""
    return clone(template, tmp_path / "workspace", prefect_server)


@pytest.fixture
def fresh(tmp_path):
    """A workspace in which no night has run, on the tiny shop."""
    return make_workspace(tmp_path / "fresh", TINY)


@pytest.fixture(scope="session")
def prefect_server(once, tmp_path_factory):
    """A Prefect server of this test process, which saves each run the start of its own; `make run` has that.

    Its tables, which take a server most of its first start, are made once for all test processes.
    """

    def make(root):
        root.mkdir()
        # Nobody's settings: they may name a database that is in use.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        command = [str(BIN / "prefect"), "server", "database", "upgrade", "-y"]
        subprocess.run(command, env={**kept, "PREFECT_HOME": str(root)}, check=True, capture_output=True)

    made, _ = once("prefect-tables", make)
    home = tmp_path_factory.mktemp("prefect")
    with (  # a copy of the file alone may lack what its log holds
        contextlib.closing(sqlite3.connect(made.root / "prefect.db")) as tables,
        contextlib.closing(sqlite3.connect(home / "prefect.db")) as copy,
    ):
        tables.backup(copy)
    server = server_of_its_own(home).start()
    yield server.url
    server.kill()
