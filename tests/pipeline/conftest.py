"""Workspaces for whole nights, made once a session and copied for each test."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import filelock
import pytest
from workspaces import TINY, Workspace, clone, make_workspace


@pytest.fixture(scope="session")
def template(tmp_path_factory, worker_id):
    """A workspace in which one tiny night has closed; made once for all workers."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    root = shared / "template"
    with filelock.FileLock(str(root) + ".lock"):
        if not (shared / "template.ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            workspace = make_workspace(root, TINY)
            first = workspace.run("run")
            (shared / "template.ready").write_text(first.out)
    return Workspace(root.resolve())


@pytest.fixture
def first_table(template):
    """What the template's night printed."""
    return (template.root.parent / "template.ready").read_text()


@pytest.fixture
def closed(template, tmp_path):
    """A copy of the workspace in which one tiny night has closed."""
    return clone(template, tmp_path / "workspace")


@pytest.fixture
def fresh(tmp_path):
    """A workspace in which no night has run, on the tiny shop."""
    return make_workspace(tmp_path / "fresh", TINY)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """A Prefect server of this test process, which saves each run the start of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    quiet = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
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


@pytest.fixture
def served(template, tmp_path, prefect_server):
    """As `closed`, with a Prefect server that runs already."""
    return clone(template, tmp_path / "workspace", prefect_server)
