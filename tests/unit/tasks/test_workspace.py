import errno
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from stillhouse.errors import NightError
from tasks import workspace
from tasks.workspace import TOKEN, exclusive, sweep

HOLD = """
import subprocess, sys, time
from pathlib import Path
from tasks.workspace import exclusive
with exclusive(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def holder(root):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def gone(pid, patience=15.0):
    deadline = time.monotonic() + patience
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_second_run_says_who_works_here(tmp_path):
    process, child = holder(tmp_path)
    with pytest.raises(NightError, match=f"process {process.pid} at work"), exclusive(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert gone(child)


def test_what_a_killed_run_had_started_is_ended_and_the_workspace_is_free(tmp_path):
    process, child = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(child)
    with exclusive(tmp_path):
        assert os.environ[TOKEN]
    assert TOKEN not in os.environ


def test_a_sweep_ends_what_carries_the_mark_and_nothing_else():
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, TOKEN: "theirs"})
    mine = subprocess.Popen(["sleep", "60"], env={**os.environ, TOKEN: "mine"})
    try:
        sweep("mine")
        mine.wait(timeout=1)
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


def test_the_note_of_who_is_at_work_is_written_whole_or_not_at_all(tmp_path):
    """A reader that met half of it found nobody; a kill in the middle of it lost the mark to sweep by."""
    with exclusive(tmp_path):
        before = tmp_path / ".stillhouse" / "kept"
        before.hardlink_to(tmp_path / ".stillhouse" / "run.json")
        first = before.read_text()
    with exclusive(tmp_path):
        assert before.read_text() == first, "the old note was written over in place"
        assert (tmp_path / ".stillhouse" / "run.json").read_text() != first


def test_without_room_for_a_note_whoever_frees_gets_in_and_nobody_else(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workspace, "write_json", full)
    with pytest.raises(OSError, match="No space left"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path, frees=True):
        pass
