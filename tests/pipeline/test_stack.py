"""The served setting on one machine: brought up, kept up, stopped, backed up and restored, nothing of it mocked."""

import base64
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pytest
from workspaces import TINY, make_workspace

from tasks.stack_control import Supervisor
from tasks.stack_layout import MARK, layout_of
from tasks.stack_settings import read_env

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(400)]

POOLS = ("night", "cpu", "gpu")


class Stack:
    """A workspace and its stack, as a user has them."""

    def __init__(self, root):
        self.workspace = make_workspace(root, TINY)
        self.root = self.workspace.root
        self.layout = layout_of(self.root)
        with socket.socket() as one, socket.socket() as two:
            for free in (one, two):
                free.bind(("127.0.0.1", 0))
            ports = (one.getsockname()[1], two.getsockname()[1])
        self.given = dict(zip(("STILLHOUSE_MLFLOW_PORT", "STILLHOUSE_PREFECT_PORT"), map(str, ports), strict=True))
        self.given["STILLHOUSE_ALERT_URLS"] = "json://nobody:a-password-of-a-test@127.0.0.1:9/"

    def run(self, *arguments, env=None, **settings):
        done = self.workspace.run("stack", *arguments, env=env or {}, **settings)
        return done.out + done.err

    @property
    def env(self):
        return read_env(self.layout.client.read_text())

    @property
    def secrets(self):
        """Every password that the stack knows."""
        kept = read_env(self.layout.secrets.read_text())
        return [value for name, value in kept.items() if name.endswith(("PASSWORD", "KEY"))] + ["a-password-of-a-test"]

    def family(self):
        """Every process of the stack, PostgreSQL's children too, which have written over their marks."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.layout.stack):
                    for one in (process, *process.children(recursive=True)):
                        found[one.pid] = one
        return list(found.values())

    def pids(self):
        return {name: one.pid for name, one in Supervisor(self.layout).standings().items()}

    def call(self, url, body=None, account=None, method=None):
        """Return (status, answer) of one request."""
        headers = {"Content-Type": "application/json"}
        if account:
            headers["Authorization"] = "Basic " + base64.b64encode(account.encode()).decode()
        data = json.dumps(body).encode() if body is not None else None
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, headers, method=method), timeout=20
            ) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def mlflow(self, path, body=None, account=""):
        env = self.env
        known = f"{env['MLFLOW_TRACKING_USERNAME']}:{env['MLFLOW_TRACKING_PASSWORD']}"
        return self.call(
            f"{env['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}", body, known if account == "" else account
        )

    def prefect(self, path, body=None, account="", method=None):
        env = self.env
        known = env["PREFECT_API_AUTH_STRING"] if account == "" else account
        return self.call(f"{env['PREFECT_API_URL']}/{path}", body, known, method)

    def kept(self):
        """What a person had put into the stack: a version with a file, a variable, a deployment."""
        code = (
            "import mlflow, tempfile; client = mlflow.MlflowClient()\n"
            "[version] = client.search_model_versions(\"name='student'\")\n"
            "print(version.version, mlflow.artifacts.load_text(version.source + '/model.txt'))"
        )
        done = self.client(code)
        variable = self.prefect("variables/name/of_a_test")[1]["value"]
        deployments = {one["name"] for one in self.prefect("deployments/filter", {})[1]}
        return done.stdout.split(), variable, "nightly" in deployments

    def client(self, code):
        done = subprocess.run(
            [shutil.which("python", path=self.workspace.environment["PATH"]), "-c", code],
            cwd=self.root,
            env={**self.workspace.environment, **self.env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    def put(self):
        self.client(
            "import mlflow; mlflow.set_experiment('nightly')\n"
            "with mlflow.start_run() as run: mlflow.log_text('the model', 'model.txt')\n"
            "client = mlflow.MlflowClient(); client.create_registered_model('student')\n"
            "client.create_model_version('student', run.info.artifact_uri, run.info.run_id)"
        )
        assert self.prefect("variables/", {"name": "of_a_test", "value": "kept"})[0] == 201


KEPT = (["1", "the", "model"], "kept", True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The stack, up; what its start printed is in ``printed``."""
    made = Stack(tmp_path_factory.mktemp("stack") / "workspace")
    try:
        made.printed = made.run("up", env=made.given)
        made.put()
        yield made
    finally:
        made.run("down")
        left = made.family()
        for process in left:
            process.kill()
        assert not left, "a stack that is down leaves no process"
        assert not made.layout.control.exists()


def test_everything_runs_and_has_said_where_it_is(stack):
    shown = stack.run("status")
    assert [line.split()[1] for line in shown.splitlines()] == ["running"] * 6, shown
    assert {stack.env["MLFLOW_TRACKING_URI"], stack.env["PREFECT_API_URL"].removesuffix("/api")} <= set(
        stack.printed.split()
    )
    for pool in POOLS:
        _status, workers = stack.prefect(f"work_pools/{pool}/workers/filter", {})
        assert [(one["name"], one["status"]) for one in workers] == [(f"{pool}-1", "ONLINE")]
    environments = {one.name: stack_environment(stack, one.name) for one in standings(stack)}
    assert environments["night"]["STILLHOUSE_WORKSPACE"] == str(stack.root)
    for pool in ("cpu", "gpu"):
        place = Path(environments[pool]["STILLHOUSE_WORKSPACE"])
        assert place != stack.root
        assert (place / "dvc.yaml").exists(), "a clone of its own"
        assert environments[pool]["STILLHOUSE_ALERT_URLS"] == stack.given["STILLHOUSE_ALERT_URLS"]
    assert "STILLHOUSE_ALERT_URLS" not in environments["mlflow"]
    assert stack.env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30", "a night from a shell must not count as dead"
    assert environments["night"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert not {name for name in environments["postgres"] if name.startswith(("MLFLOW", "PREFECT", "PG"))}


def standings(stack):
    return [one for one in Supervisor(stack.layout).standings().values() if one.pid]


def stack_environment(stack, name):
    return psutil.Process(stack.pids()[name]).environ()


def test_nothing_listens_but_on_loopback_and_sockets(stack):
    listening = {
        (one.laddr.ip, one.laddr.port)
        for process in stack.family()
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert {address for address, _port in listening} == {"127.0.0.1"}
    assert {int(stack.given[name]) for name in stack.given if name.endswith("PORT")} <= {port for _, port in listening}
    postgres = psutil.Process(stack.pids()["postgres"])
    assert not postgres.net_connections("inet")
    assert stack.layout.control.stat().st_mode & 0o777 == 0o700
    assert not stack.layout.sockets.stat().st_mode & 0o066, "nobody else may list or enter what is in there"


@pytest.mark.parametrize("account", [None, "admin:password", "stillhouse:wrong"])
def test_strangers_are_turned_away(stack, account):
    assert stack.mlflow("experiments/search?max_results=1", account=account)[0] == 401
    assert stack.prefect("flow_runs/filter", {}, account=account)[0] == 401


def test_who_read_the_env_file_is_let_in(stack):
    assert stack.mlflow("experiments/search?max_results=1")[0] == 200
    assert stack.prefect("flow_runs/filter", {})[0] == 200


def test_the_schedule_yields_runs_of_the_night_on_its_pool(stack):
    status, pools = stack.prefect("work_pools/filter", {})
    assert status == 200
    assert {pool["name"]: pool["concurrency_limit"] for pool in pools}.items() >= {"night": None, "gpu": 1}.items()
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "flows": {"name": {"any_": ["scheduled"]}}}
    until = time.monotonic() + 60
    while not (runs := stack.prefect("flow_runs/filter", wanted)[1]):
        assert time.monotonic() < until, "no run was made of the schedule"
        time.sleep(1)
    assert all(run["auto_scheduled"] and run["work_pool_name"] == "night" for run in runs)
    assert {run["expected_start_time"][11:16] for run in runs} == {"03:00"}


def test_the_database_wants_a_password(stack):
    for user in ("postgres", "mlflow", "prefect"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(stack.layout.database_socket), user=user, dbname="mlflow", password="wrong")


def test_no_password_shows(stack):
    lines = [" ".join(process.cmdline()) for process in stack.family()]
    assert len(lines) > 6
    logs = [file.read_text() for file in stack.layout.logs.iterdir()]
    places = [*lines, *logs, stack.layout.config.read_text(), stack.printed]
    assert len(stack.secrets) == 7
    for secret in stack.secrets:
        assert not [place for place in places if secret in place]
    for file in (stack.layout.client, stack.layout.secrets, *stack.layout.programs.iterdir()):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_up_again_is_harmless_and_says_so(stack):
    before = stack.pids()
    nightly = stack.prefect("deployments/name/scheduled/nightly")[1]
    [schedule] = nightly["schedules"]
    assert stack.prefect(f"deployments/{nightly['id']}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    other = {"STILLHOUSE_MLFLOW_PORT": "1"}
    assert "already up; to take the new STILLHOUSE_MLFLOW_PORT: `make stack-down`" in stack.run("up", env=other)
    assert stack.pids() == before
    [schedule] = stack.prefect("deployments/name/scheduled/nightly")[1]["schedules"]
    assert (schedule["active"], schedule["schedule"]["cron"]) == (False, "0 3 * * *"), "paused by a person, it stays so"


@pytest.mark.drill  # the fourteen nights kill each server and a worker in mid-night
def test_what_is_killed_comes_back(stack):
    before = stack.pids()
    for name in ("postgres", "mlflow", "prefect", "gpu"):
        psutil.Process(before[name]).send_signal(signal.SIGKILL)
    until = time.monotonic() + 90
    while True:
        shown = stack.workspace.start("stack", "status")
        out, _ = shown.communicate()
        with contextlib.suppress(OSError):
            if shown.returncode == 0 and stack.mlflow("experiments/search?max_results=1")[0] == 200:
                break
        assert time.monotonic() < until, out
        time.sleep(0.3)
    after = stack.pids()
    assert {name for name in before if before[name] != after[name]} == {"postgres", "mlflow", "prefect", "gpu"}


@pytest.mark.drill  # below, a whole machine is lost, and what was kept comes back
def test_a_killed_supervisor_leaves_nothing_behind_and_the_state_outlives_it(stack):
    psutil.Process(int(stack.layout.pid.read_text())).kill()
    assert stack.family(), "its children live on"
    assert "mlflow" in (said := stack.run("down")), said
    assert not stack.family()
    assert stack.run("down").strip() == "the stack was down already"
    assert {line.split()[1] for line in stack.run("status", code=1).splitlines()} == {"down"}
    refused = stack.run("backup", code=2)
    assert "the stack must be up for a backup" in refused
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(stack.given["STILLHOUSE_PREFECT_PORT"])))
        taken.listen()
        assert "must be free, found it in use: name another in STILLHOUSE_PREFECT_PORT" in stack.run("up", code=2)
        assert not stack.family(), "nothing is started"
    before = stack.env
    stack.run("up")
    assert stack.env == before, "passwords, and ports that were said once, stay"
    assert stack_environment(stack, "cpu")["STILLHOUSE_ALERT_URLS"] == stack.given["STILLHOUSE_ALERT_URLS"]
    assert stack.kept() == KEPT


def test_a_lost_machine_comes_back_from_its_backup(stack, tmp_path):
    git = ["git", "-C", str(stack.root)]
    subprocess.run([*git, "tag", "night/2026-03-02/closed"], check=True)
    remote = stack.root / ".stillhouse" / "remote"
    content = remote / "files" / "md5" / "49" / "f68a5c8493ec2c0bf489821c21fc3b"  # MD5 of "hi"
    content.parent.mkdir(parents=True, exist_ok=True)
    content.write_text("hi")
    ledger = remote / "stillhouse" / "ledgers" / "of-a-test.json"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_text("the head then")
    backup = tmp_path / "stack.tar"
    stack.run("backup", str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600
    assert "the stack must be down for a restore" in stack.run("restore", str(backup), code=2)

    secrets = stack.layout.secrets.read_bytes()
    for process in stack.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(stack.layout.stack)
    subprocess.run([*git, "tag", "-d", "night/2026-03-02/closed"], check=True)
    content.write_text("ho")
    (remote / "later").write_text("made after the backup")
    ledger.write_text("a head after the backup")
    subprocess.run([*git, "tag", "night/2026-03-09/closed"], check=True)

    whole = backup.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    at = whole.index(b"PGDMP") + 20
    (tmp_path / "altered.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for name, found in (("cut.tar", "found "), ("altered.tar", "found database/mlflow.dump with other content")):
        said = stack.run("restore", str(tmp_path / name), code=2)
        assert found in said
        assert name in said
        assert not stack.layout.stack.exists()

    stack.layout.stack.mkdir()
    (stack.layout.stack / "mine").touch()
    said = stack.run("restore", str(backup))
    assert "DVC's remote got 1 files, git 1 tags of nights" in said
    assert content.read_text() == "hi", "a damaged file is mended"
    assert (remote / "later").exists(), "what the backup does not know stays"
    assert ledger.read_text() == "the head then", "a later one would call the restored ledger cut off"
    assert (stack.layout.stack / "ledgers-before" / ledger.name).read_text() == "a head after the backup"
    assert "were laid aside (git for-each-ref refs/before-restore): night/2026-03-09/closed" in said
    listed = subprocess.run([*git, "for-each-ref", "--format=%(refname)"], check=True, capture_output=True, text=True)
    refs = listed.stdout.split()
    assert "refs/tags/night/2026-03-09/closed" not in refs
    assert [ref for ref in refs if ref.startswith("refs/before-restore/") and ref.endswith("/night/2026-03-09/closed")]
    [beside] = stack.root.glob(".stillhouse/stack.before-restore-*")
    assert (beside / "mine").exists(), "what was there is kept"
    assert stack.layout.secrets.read_bytes() == secrets
    stack.run("up")
    assert stack.kept() == KEPT
