"""Stages side by side on a machine of several GPUs: each has its own. `nvidia-smi` is played, the locks are real."""

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from stillhouse.errors import NightError, ParamsError
from tasks import deploying, gpus
from tasks.gpus import VISIBLE, own_gpu

#: As `nvidia-smi -L` names two GPUs, one of them in parts.
LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-1a2b0000-0000-0000-0000-000000000000)
  MIG 1g.18gb     Device  0: (UUID: MIG-77770000-0000-0000-0000-000000000000)
GPU 1: NVIDIA H200 (UUID: GPU-1a2c0000-0000-0000-0000-000000000000)
"""

#: A process that holds a GPU until somebody ends it.
HOLDER = """
import sys, time
from pathlib import Path
from tasks import gpus
gpus._LOCKS = Path(sys.argv[1])
with gpus.own_gpu() as given:
    print(given["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose `nvidia-smi -L` prints what the file holds, with locks of its own; first it has two GPUs."""
    listed, program = tmp_path / "listed", tmp_path / "bin" / "nvidia-smi"
    listed.write_text(LISTED)
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && while IFS= read -r one; do echo "$one"; done < {listed}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "_LOCKS", tmp_path / "locks")
    monkeypatch.setattr(gpus, "_LOOK", 0.01)
    return listed


def side_by_side(count):
    """Which GPUs as many stages get that run at once."""
    with ExitStack() as held:
        return [held.enter_context(own_gpu())[VISIBLE] for _ in range(count)]


def test_two_stages_at_once_have_two_gpus_and_what_one_let_go_is_free(machine):
    assert side_by_side(2) == ["0", "1"]
    assert side_by_side(1) == ["0"]
    assert gpus._LOCKS.stat().st_mode & 0o777 == 0o700


def test_a_process_that_is_killed_holds_nothing(machine):
    command = [sys.executable, "-c", HOLDER, str(gpus._LOCKS)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "0\n"
            assert side_by_side(1) == ["1"]
        finally:
            holder.kill()
    assert side_by_side(2) == ["0", "1"]


def test_a_stage_waits_where_every_gpu_is_held_and_no_two_share_one(machine, caplog):
    waiting, got = threading.Event(), []

    def wait():
        with own_gpu(lambda: waiting.set() or False) as given:
            got.append(given[VISIBLE])

    with own_gpu(), ExitStack() as second:
        assert second.enter_context(own_gpu()) == {VISIBLE: "1"}
        third = threading.Thread(target=wait)
        third.start()
        assert waiting.wait(30)
        assert got == []
        second.close()
        third.join(30)
    assert got == ["1"]
    assert [record.message for record in caplog.records if "held by another stage: waiting" in record.message]


def test_a_wait_ends_with_the_night(machine):
    with own_gpu(), own_gpu(), pytest.raises(RuntimeError, match="given up"), own_gpu(lambda: True):
        pass


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-1a2c", ["GPU-1a2c"]),
        ("GPU-1a2,0", []),
        ("0,5,1", ["0"]),
        ("1,-1,0", ["1"]),
        ("MIG-77770000/0/1", ["MIG-77770000/0/1"]),
        ("", []),
    ],
    ids=repr,
)
def test_only_gpus_that_were_given_are_taken(machine, monkeypatch, given, chosen):
    """As CUDA reads the variable: an ambiguous name or one of no GPU here ends it."""
    monkeypatch.setenv(VISIBLE, given)
    assert side_by_side(len(chosen)) == chosen
    assert deploying._gpus_here() == max(1, len(chosen))


def test_a_gpu_of_two_names_has_one_lock(machine, monkeypatch):
    with own_gpu() as given:
        assert given == {VISIBLE: "0"}
        monkeypatch.setenv(VISIBLE, "GPU-1a2b,GPU-1a2c")
        assert side_by_side(1) == ["GPU-1a2c"]


def test_where_no_gpu_is_nothing_is_held_or_given(machine, monkeypatch):
    machine.write_text("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n")
    with own_gpu() as first, own_gpu() as second:
        assert first == second == {}
    monkeypatch.setenv("PATH", "/nowhere")
    with own_gpu() as given:
        assert given == {}
    assert not gpus._LOCKS.exists()
    monkeypatch.setenv(VISIBLE, "3")  # somebody knows better than a program that is not there
    assert side_by_side(1) == ["3"]


def test_locks_in_somebody_elses_folder_are_refused(machine, tmp_path):
    (tmp_path / "theirs").mkdir()
    gpus._LOCKS.symlink_to(tmp_path / "theirs")
    with pytest.raises(NightError, match="must be a folder of this user"), own_gpu():
        pass
    gpus._LOCKS.unlink()
    gpus._LOCKS.touch()
    with pytest.raises(NightError, match="must be a folder of this user"), own_gpu():
        pass


def test_a_new_pool_has_a_slot_for_each_gpu_unless_somebody_said_how_many(machine, monkeypatch):
    monkeypatch.delenv(deploying.GPUS, raising=False)
    assert deploying._at_first("gpu", deploying._gpus_said()) == 2
    assert deploying._at_first("cpu", None) is None
    monkeypatch.setenv(deploying.GPUS, "5")
    assert deploying._at_first("gpu", deploying._gpus_said()) == 5
    monkeypatch.delenv(deploying.GPUS)
    machine.write_text("")
    assert deploying._at_first("gpu", deploying._gpus_said()) == 1
    monkeypatch.setenv(deploying.GPUS, "0")
    with pytest.raises(ParamsError, match="STILLHOUSE_GPUS must be a number of GPUs"):
        deploying._gpus_said()
