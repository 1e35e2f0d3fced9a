"""The guide's commands, as they are printed: a new user's shell in a fresh clone, on a stack of its own."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from workspaces import BIN, ROOT, TINY, Workspace

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(2400)]

#: A user with little data of their own. Students and rule are such that version 2 is champion; on the built-in shop the
#: two are so near that it depends on the processor.
SETTINGS = TINY | {
    "gate.choose": "smallest",
    "students": {
        "transformer": {
            "model": {"kind": "transformer", "width": 8, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.0}
        },
        "gru": {"model": {"kind": "gru", "width": 24, "blocks": 1, "length": 20, "dropout": 0.0}},
    },
}


def printed(document, heading):
    """The indented lines below a heading of a document, up to the next one."""
    _, _, rest = document.read_text().partition(f"\n{heading}\n")
    lines = [line[4:] for line in re.split(r"^#+ ", rest, flags=re.MULTILINE)[0].splitlines() if line[:4] == "    "]
    assert lines, f"{document.name} prints no command below {heading!r}"
    return lines


class Shell:
    """A fresh clone with an environment, and a shell in it that stops at the first line that fails."""

    def __init__(self, place):
        git = ["git", "-C", str(place), "-c", "user.name=a user", "-c", "user.email=user@example.com"]
        subprocess.run(["git", "clone", "-q", "--no-tags", str(ROOT), str(place)], check=True)
        self.workspace = Workspace(place.resolve())
        self.root = self.workspace.root
        self.workspace.set(SETTINGS)
        schedule = self.root / "prefect.yaml"
        hour = (datetime.now(UTC) + timedelta(hours=12)).hour  # the guide's own nights must be the only ones
        schedule.write_text(schedule.read_text().replace('cron: "0 3 * * *"', f'cron: "0 {hour} * * *"'))
        subprocess.run([*git, "commit", "-qam", "our settings"], check=True)
        (environment := self.root / ".venv").mkdir()
        for one in Path(sys.prefix).iterdir():
            if one.name != "ready":
                (environment / one.name).symlink_to(one)
        (environment / "ready").touch()  # newer than what it is made from: make leaves it as it is
        with socket.socket() as mlflow, socket.socket() as prefect:
            for free in (mlflow, prefect):
                free.bind(("127.0.0.1", 0))
            self.ports = [free.getsockname()[1] for free in (mlflow, prefect)]

    def run(self, lines, **given):
        """Run the lines in one shell, each told before it runs; fails with what was printed where one of them does."""
        told = self.root.parent / "told"
        script = [line for one in lines for line in (f"printf '%s\\n' {_quoted('$ ' + one)}", one)]
        kept = {key: value for key, value in self.workspace.environment.items() if key != "VIRTUAL_ENV"}
        # The user's own PATH: where the guide puts the environment on it, it is the guide that did.
        kept["PATH"] = os.pathsep.join(one for one in os.environ["PATH"].split(os.pathsep) if one != str(BIN))
        with told.open("w") as out:
            done = subprocess.run(
                ["bash", "-e", "-c", "\n".join(script)],
                cwd=self.root,
                env={**kept, "COLUMNS": "150", **given},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        assert done.returncode == 0, f"exit {done.returncode}\n{told.read_text()[-6000:]}"
        return told.read_text()

    def left(self):
        """What still runs ten seconds later, by its command line."""
        until = time.monotonic() + 10
        while (found := self.processes()) and time.monotonic() < until:
            time.sleep(0.2)
        return [" ".join(one.cmdline()) for one in found if one.is_running()]

    def processes(self):
        """Every process that works in the clone, or whose environment or command line names it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                places = [process.cwd(), *process.cmdline(), *process.environ().values()]
                if any(str(self.root) in place for place in places):
                    found.append(process)
        return found


def _quoted(line):
    return "'" + line.replace("'", "'\\''") + "'"


@pytest.fixture
def shell():
    # Not below pytest's own folder: another pytest that begins on the machine shuts that to whoever PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="stillhouse-guide-") as folder:
        made = Shell(Path(folder) / "workspace")
        yield made
        if (made.root / ".stillhouse" / "stack").exists():
            made.workspace.start("stack", "down").communicate()
        for process in made.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_from_nothing_to_a_night_a_promotion_a_rollback_an_audit_and_back_from_a_backup(shell):
    guide = shell.root / "docs" / "operations.md"
    kept = [f"stillhouse history --json > ../{name}.json" for name in ("night", "decided", "restored")]
    names = ("STILLHOUSE_MLFLOW_PORT", "STILLHOUSE_PREFECT_PORT")
    told = shell.run(
        [
            *printed(guide, "## From nothing to a scheduled night"),
            *(kept[0], "prefect deployment schedule ls scheduled/nightly -o json > ../schedule.json"),
            *printed(guide, "## Promote, roll back, audit"),
            kept[1],
            *printed(guide, "### Backup and restore"),
            kept[2],
            *printed(guide, "## The stack"),
        ],
        **dict(zip(names, map(str, shell.ports), strict=True)),
    )
    night, decided, restored = (
        json.loads((shell.root.parent / f"{name}.json").read_text()) for name in ("night", "decided", "restored")
    )
    [schedule] = json.loads((shell.root.parent / "schedule.json").read_text())
    assert schedule["active"] is True
    assert (night["champion"]["version"], decided["champion"]["version"]) == (2, 1)
    acts = [(one["kind"], one["version"], one["reason"]) for one in decided["entries"][len(night["entries"]) :]]
    assert acts == [("promoted", 1, "campaign week"), ("promoted", 2, "it is over"), ("rolled_back", 1, "complaints")]
    assert restored == decided, "a restore brings every decision back"
    assert "every link is verified" in told
    assert not shell.left()
    for port in shell.ports:
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def test_the_readmes_commands_work_as_printed(shell):
    commands = [line for line in printed(shell.root / "README.md", "## Two commands") if "make test" not in line]
    slow = [line for line in commands if line.startswith("stillhouse tune")]
    assert len(slow) == 1, "forty trials have tests of their own"
    told = shell.run([line for line in commands if line not in slow])
    assert "every link is verified" in told
    assert not shell.left()
