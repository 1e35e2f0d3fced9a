"""A night killed with SIGKILL goes on, loses nothing and registers nothing twice."""

import contextlib
import json
import signal
import time

import psutil
import pytest

from stillhouse.lineage.ledger import verify_chain
from stillhouse.tracking import ledger_store
from stillhouse.tracking.store import connect

pytestmark = pytest.mark.slow

#: The stages of a night in an order in which each can be the one at work, and seconds of its work before the kill.
STAGES = {
    "ingest": 0.3,
    "validate": 0.3,
    "admit": 0.3,
    "prepare": 0.3,
    "evaluate_champion": 0.3,
    "train_teacher": 2.5,
    "check_teacher": 0.3,
    "export_soft_targets": 0.3,
    "train_student@small": 2.5,
    "package@small": 0.3,
    "evaluate@small": 0.3,
}

#: Settings whose change makes one stage run again on the template, its upstream being reused.
TOUCH = {
    "train_teacher": {"train_teacher.training.learning_rate": 0.0011},
    "evaluate@small": {"evaluate.short_history": 9},
}


def summary_of(workspace):
    """What must not depend on how often a night was interrupted: the deterministic outputs' hashes."""
    found = {}
    for stage, entry in workspace.lock().items():
        for out in entry["outs"]:
            if not out["path"].startswith(("runs/", "timings/", "reports/data_docs")):
                found[stage, out["path"]] = out["md5"]
    return found


def registry_of(workspace):
    """Every registered version by night and content, and the keys of the ledger, whose chain holds."""
    client = connect(workspace.root).client
    versions = [one for name in ("student", "teacher") for one in client.search_model_versions(f"name = '{name}'")]
    entries = verify_chain(ledger_store.read(workspace.root))
    return [sorted((one.tags["night"], one.tags[one.name]) for one in versions), sorted(e.entry.key for e in entries)]


def no_process_of(workspace):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = []
        for process in psutil.process_iter(["cmdline", "cwd", "environ"]):
            with contextlib.suppress(psutil.Error):
                if process.info["cwd"] == str(workspace.root) and "STILLHOUSE_RUN_TOKEN" in (
                    process.info["environ"] or {}
                ):
                    left.append(process.info["cmdline"])
        if not left:
            return True
        time.sleep(0.2)
    return left


# CI kills a worker with the stage at work (test_drill), and training and export by themselves (tests/unit).
@pytest.mark.drill
def test_a_night_killed_in_each_stage_ends_with_the_bytes_of_an_unbroken_one(closed, second):
    closed.set({"gate.seed": 18})  # as the unbroken night has it
    before = registry_of(closed)
    for stage, seconds in STAGES.items():
        closed.kill_in(stage, "--as-of", "2026-03-03", after=seconds)
        assert no_process_of(closed) is True
        assert "night/2026-03-03/closed" not in closed.tags()
    assert registry_of(closed) == before
    again = closed.run("run")
    assert "goes on where it stopped" in again.err
    assert "night/2026-03-03/closed" in closed.tags()
    versions, keys = registry_of(closed)
    assert len(versions) == len({tuple(version) for version in versions}) == len(before[0]) + 2
    assert len(keys) == len(set(keys)) == len(before[1]) + 2
    assert "up to date" in closed.dvc("status").stdout
    assert summary_of(closed) == summary_of(second.workspace)


@pytest.mark.drill
def test_a_night_killed_while_dvc_rewrote_its_files_goes_on(closed):
    closed.set(TOUCH["evaluate@small"])
    closed.kill_in("evaluate@small", "--force", after=0.3)
    lock = closed.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[:-200])
    assert json.loads(closed.run("status", "--json").out)["open"] == "2026-03-02.2"  # mends it too
    lock.write_text(whole[:-200])
    (closed.root / ".dvc" / "tmp" / "rwlock").write_text("")
    again = closed.run("run")
    assert "dvc.lock was left half written" in again.err
    assert "night/2026-03-02.2/closed" in closed.tags()
    assert "up to date" in closed.dvc("status").stdout


# CI kills a promotion at each of its steps by itself (tests/unit/tasks/test_promotion.py).
@pytest.mark.drill
@pytest.mark.parametrize("point", ["tasks.registry.register", "tasks.registry.promote", "tasks.night.close_night"])
def test_a_night_killed_between_gate_and_close_completes_and_registers_nothing_twice(closed, point):
    module = point.rpartition(".")[0]
    closed.set(TOUCH["evaluate@small"])
    before = registry_of(closed)
    killed = closed.python(
        f"""
import os, signal, sys, {module}
sys.argv = ['stillhouse', 'run', '--force']
real = {point}
{point} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
from stillhouse.cli.main import main
main()
"""
    )
    assert killed.returncode == -9, killed.stderr
    assert not [tag for tag in closed.tags() if tag == "night/2026-03-02.2/closed"]
    closed.run("run")
    versions, keys = registry_of(closed)
    assert len(versions) == len(before[0]) + 1, "the student's; the teacher is the one that the night had before"
    assert len(keys) == len(set(keys))
    assert "night/2026-03-02.2/closed" in closed.tags()


def test_ctrl_c_ends_a_run_at_once_with_everything_it_had_started(closed):
    closed.set(TOUCH["train_teacher"])
    night = closed.start("run", "--force")
    deadline = time.monotonic() + 120
    while not closed.stage_processes("train_teacher"):
        assert night.poll() is None, night.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    night.send_signal(signal.SIGINT)
    _, err = night.communicate(timeout=30)
    assert night.returncode == 130
    assert err.splitlines()[-1] == "stillhouse: interrupted; the next run goes on from here"
    assert no_process_of(closed) is True
    assert json.loads(closed.run("status", "--json").out)["open"] == "2026-03-02.2"
