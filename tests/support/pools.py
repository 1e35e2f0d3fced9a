"""Pools with real workers: a workspace, clones that share nothing with it but a remote and the servers."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
from workspaces import BIN, QUICK

from tasks.stack_programs import POLLING

#: What a worker is told beside where it works.
WORKER = {**POLLING, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what, told, patience=120.0, every=0.2):
    """Return what ``what()`` returns once it is true."""
    until = time.monotonic() + patience
    while True:
        if found := what():
            return found
        assert time.monotonic() < until, f"waited {patience:.0f} s for: {told}"
        time.sleep(every)


def answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


class Server:
    """A server of one test module, which can be stopped and started again."""

    def __init__(self, command, env, health, log, cwd):
        self.command, self.env, self.health, self.log, self.cwd = command, env, health, log, cwd
        self.process = None

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=self.cwd, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: answers(self.health) or self.process.poll() is not None, self.health)
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self

    def kill(self):
        kill_tree(self.process.pid)
        self.process.wait()


def kill_tree(pid):
    """Kill a process and everything below it, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)


def mlflow_server(folder):
    """An MLflow server on a database of its own, files through it."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "STILLHOUSE_"))},
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        *(str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
    ]
    server = Server(command, env, f"http://127.0.0.1:{port}/health", folder / "log", folder)
    server.url = f"http://127.0.0.1:{port}"
    return server


def prefect_server(folder, database=None):
    """A Prefect server on ``database``, or else one of its own."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",  # as `stillhouse run` starts its own
        "DO_NOT_TRACK": "1",
        **({"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}),
    }
    command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = Server(command, env, f"http://127.0.0.1:{port}/api/health", folder / "log", folder)
    server.url = f"http://127.0.0.1:{port}/api"
    return server


class Pools:
    """A workspace on pools: its servers, its clones and their workers."""

    def __init__(self, workspace, folder, prefect_url, mlflow_url, extra=None):
        self.workspace, self.folder = workspace, folder
        self.servers = {
            "PREFECT_API_URL": prefect_url,
            "PREFECT_HOME": str(folder / "client"),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_TRACKING_URI": mlflow_url,
            **(extra or {}),
        }
        self.workers = {}

    def environment(self, clone):
        """What a worker of ``clone``, or a command there, is given."""
        return {
            **self.workspace.environment,
            **self.servers,
            "PYTHONPATH": f"{clone / 'src'}{os.pathsep}{clone}",
            "STILLHOUSE_WORKSPACE": str(clone),
            **WORKER,
        }

    def python(self, code, clone=None):
        """Run ``code`` in the workspace, or in a clone; return what it printed."""
        place = clone or self.workspace.root
        done = subprocess.run(
            [sys.executable, "-c", f"{QUICK}{code}"],
            cwd=place,
            env=self.environment(place),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def deploy(self):
        self.python("import pathlib; from tasks.deploying import deploy; deploy(pathlib.Path.cwd())")

    def clone(self, name, setup=""):
        """Make a clone that shares neither cache nor anything else with the workspace but its remote."""
        place = self.folder / name
        self.python(
            f"import pathlib; from tasks.clones import make_clone; "
            f"make_clone(pathlib.Path.cwd(), pathlib.Path({str(place)!r}), share_cache=False)"
        )
        return place

    def start_worker(self, pool, clone):
        log = (self.folder / f"{pool}.log").open("a")
        with log:
            self.workers[pool] = subprocess.Popen(
                [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--type", "process", "--name", f"{pool}-1"],
                cwd=clone,
                env=self.environment(clone),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.workers[pool]

    def log(self, pool):
        return (self.folder / f"{pool}.log").read_text()[-4000:]

    def run(self, *arguments, code=0, **env):
        """``stillhouse`` in the workspace, its stages on the pools."""
        given = {**self.environment(self.workspace.root), "STILLHOUSE_POOLS": "1", **env}
        done = subprocess.run(
            [str(BIN / "stillhouse"), *arguments],
            cwd=self.workspace.root,
            env=given,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self._logs()}"
        return done

    def _logs(self):
        return "\n".join(f"== {pool}\n{self.log(pool)}" for pool in self.workers)

    def start(self, *arguments, **env):
        """As `run`, in the background."""
        return subprocess.Popen(
            [str(BIN / "stillhouse"), *arguments],
            cwd=self.workspace.root,
            env={**self.environment(self.workspace.root), "STILLHOUSE_POOLS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self):
        for worker in self.workers.values():
            kill_tree(worker.pid)
            worker.wait()
