"""Real processes, really killed."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

TIED = "import time; from stillhouse.runner.lifeline import tie_to_parent; tie_to_parent()"
STAGE = f"{TIED}; print('ready', flush=True); time.sleep(60)"


def ended(pid, patience=10.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_stage_dies_when_the_process_that_started_it_is_killed():
    code = f"""
import subprocess, sys
stage = subprocess.Popen([sys.executable, '-c', {STAGE!r}], stdout=subprocess.PIPE, text=True)
stage.stdout.readline()
print(stage.pid, flush=True)
stage.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    stage = int(parent.stdout.readline())
    assert psutil.pid_exists(stage)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert ended(stage)


def test_a_stage_dies_when_the_flow_is_killed_though_its_parent_lives():
    flow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "STILLHOUSE_NIGHT_PID": str(flow.pid)},
    )
    stage.stdout.readline()
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert stage.wait(timeout=10) == -signal.SIGKILL
    stage.stdout.close()


def test_a_stages_own_children_die_with_it():
    code = f"import subprocess; {TIED}; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    flow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stage = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "STILLHOUSE_NIGHT_PID": str(flow.pid)},
    )
    child = int(stage.stdout.readline())
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    stage.wait(timeout=10)
    stage.stdout.close()
    assert ended(child)


@pytest.mark.parametrize("limit", ["0.5"])
def test_a_stage_is_stopped_at_its_time_limit(limit):
    stage = subprocess.run(
        [
            sys.executable,
            "-c",
            STAGE.replace("tie_to_parent()", "tie_to_parent(lambda s: print('limit', s, flush=True))"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "STILLHOUSE_NIGHT_PID": str(os.getpid()), "STILLHOUSE_TIME_LIMIT": limit},
        timeout=30,
    )
    assert stage.returncode == -signal.SIGKILL
    assert "limit 0.5" in stage.stdout
