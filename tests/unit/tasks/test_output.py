"""A flow on a worker goes on when the worker, who reads what it prints, is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Prints as a flow does: itself, through rich as Prefect's log does, and in a child.
FLOW = """
import subprocess, sys
from pathlib import Path
from rich.console import Console
from tasks.output import outlive_reader
outlive_reader()
print("began", flush=True)
sys.stdin.readline()
for number in range(3):
    print("line", number, "x" * 100_000, flush=True)
    Console(file=sys.stderr).print("log", number)
    subprocess.run([sys.executable, "-c", "print('child', flush=True)"], check=True)
print("last words")
Path(sys.argv[1]).write_text("ended")
"""


@pytest.fixture
def flow(tmp_path):
    def start(**environment):
        return subprocess.Popen(
            [sys.executable, "-c", FLOW, str(tmp_path / "ended")],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def test_what_is_printed_arrives_whole(flow):
    said, log = flow(PREFECT__FLOW_RUN_ID="a").communicate(b"\n", timeout=60)
    assert said.count(b"x") == 300_000
    assert said.count(b"child") == 3
    assert said.endswith(b"last words\n")
    assert log == b"log 0\nlog 1\nlog 2\n"


@pytest.mark.parametrize("worker", [True, False])
def test_a_reader_that_has_gone_ends_no_flow_of_a_worker(flow, tmp_path, worker):
    one = flow(**({"PREFECT__FLOW_RUN_ID": "a"} if worker else {}))
    assert one.stdout.readline() == b"began\n"
    one.stdout.close()
    one.stderr.close()
    one.stdin.write(b"\n")
    one.stdin.close()
    one.wait(timeout=60)
    assert (tmp_path / "ended").exists() == worker
