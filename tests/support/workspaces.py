"""Workspaces for whole nights: a git and DVC repository made from this checkout, on the tiny shop."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TAKEN = (
    *("src", "flows", "tasks", "mlflow", "deploy", "dvc.yaml", "params.yaml", "prefect.yaml"),
    *("pyproject.toml", "requirements.txt"),
    *(".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"),
)

#: What makes a night cheap: the tiny shop, small models, few epochs.
TINY = {
    "source.shop.size": "tiny",
    "validate.min_rows": 100,
    "prepare.min_user_events": 2,
    "prepare.min_item_events": 2,
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
    "gate.min_users": 5,
    "gate.margin": 0.9,
    "gate.reference_margin": 0.9,
    "gate.slices.margin": 0.9,
    "gate.resamples": 200,
    "gate.max_p99_ms": 1000.0,
}


#: Before code that imports much and ends soon: looking for garbage meanwhile takes a third of its time.
QUICK = "import gc; gc.disable()\n"


class Workspace:
    """A folder in which `stillhouse` can be run as a user would."""

    def __init__(self, root, server=None):
        self.root = root
        self.server = server
        """Address of a Prefect server that runs already; without one each run starts its own, as a user's does."""

    def set(self, values):
        path = self.root / "params.yaml"
        document = yaml.safe_load(path.read_text())
        for dotted, value in values.items():
            *parents, last = dotted.split(".")
            section = document
            for key in parents:
                section = section[key]
            section[last] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def params(self):
        return yaml.safe_load((self.root / "params.yaml").read_text())

    @property
    def environment(self):
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "STILLHOUSE_", "PYTEST"))
        }
        return {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.root / 'src'}{os.pathsep}{self.root}",
            **({"PREFECT_API_URL": self.server, "PREFECT_HOME": str(self.root / ".prefect")} if self.server else {}),
        }

    def start(self, *arguments, **settings):
        return subprocess.Popen(
            [str(BIN / "stillhouse"), *arguments],
            cwd=self.root,
            env={**self.environment, **settings.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )

    def run(self, *arguments, code=0, **settings):
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, f"exit {process.returncode}, not {code}\n{out}\n{err}"
        process.out, process.err = out, err
        return process

    def python(self, code, **settings):
        return subprocess.run(
            [sys.executable, "-c", f"{QUICK}{code}"],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            **settings,
        )

    def dvc(self, *arguments):
        return subprocess.run(
            [str(BIN / "dvc"), *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True
        )

    def tags(self):
        done = subprocess.run(["git", "tag"], cwd=self.root, capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())

    def lock(self):
        return yaml.safe_load((self.root / "dvc.lock").read_text())["stages"]

    def stage_processes(self, stage):
        """The processes that run ``stage`` in this workspace."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            with contextlib.suppress(psutil.Error):
                words = process.info["cmdline"] or []
                if process.info["cwd"] == str(self.root) and "stage" in words and stage in words:
                    found.append(process)
        return found

    def kill_in(self, stage, *arguments, after=0.5, patience=180):
        """Start a night, kill its flow and the stage with SIGKILL once the stage has run for ``after`` seconds."""
        night = self.start("run", *arguments)
        deadline = time.monotonic() + patience
        while not (running := self.stage_processes(stage)):
            assert night.poll() is None, night.communicate()
            assert time.monotonic() < deadline, f"{stage} never started"
            time.sleep(0.02)
        time.sleep(after)
        for process in (psutil.Process(night.pid), *running):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        night.communicate()
        return night


def make_workspace(root, values):
    root.mkdir(parents=True)
    for name in TAKEN:
        source, target = ROOT / name, root / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            # With what Python has compiled, which holds as long as a source keeps its time: all anew takes seconds.
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info", "*.pyc.*"))
        else:
            shutil.copy2(source, target)
    workspace = Workspace(root.resolve())
    workspace.set(values)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return workspace


def clone(template, root, server=None):
    """Copy a workspace; MLflow's database holds absolute paths, which move along."""
    shutil.copytree(template.root, root, symlinks=True)
    database = root / ".stillhouse" / "mlflow.db"
    if database.exists():
        old, new = str(template.root), str(root.resolve())
        with contextlib.closing(sqlite3.connect(database)) as connection:
            tables = [row[0] for row in connection.execute("select name from sqlite_master where type='table'")]
            for table in tables:
                for column in connection.execute(f"pragma table_info('{table}')").fetchall():
                    if column[2].upper().startswith(("VARCHAR", "TEXT")):
                        change = f'update "{table}" set "{column[1]}" = replace("{column[1]}", ?, ?)'
                        connection.execute(f'{change} where "{column[1]}" like ?', (old, new, f"%{old}%"))
            connection.commit()
    return Workspace(root.resolve(), server)
