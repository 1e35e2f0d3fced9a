"""Deaths on pools: whatever dies, the run ends, its slot is free, its children are gone, and the next attempt goes on.

One night is attacked in stage after stage, for real, and must end with the bytes of a night that nobody attacked.
Most of it is waiting for what notices: it is part of the drill (``make drill``).
"""

import contextlib
import json
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from pools import Pools, kill_tree, mlflow_server, prefect_server, wait_for
from workspaces import TINY, make_workspace

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(2400)]

#: Seconds within which a run must have ended.
PROMPTLY = 120.0

RUNS = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = sorted(client.read_flow_runs(), key=lambda run: run.created)
    print(json.dumps([[str(run.id), run.name, run.state_name] for run in runs]))
"""

SLOTS = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(json.dumps(client.read_work_pool_concurrency_status("gpu").model_dump(mode="json")))
"""

OVER = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")


class Attacked(Pools):
    """Pools with the means to find what is at work, and to end it."""

    def runs(self, name):
        """Flow runs of that name, or those of a night's workers that the stage of that name was on order with, oldest
        first: [id, name, state]."""

        def named(run):
            night, _, stages = run[1].partition(": ")
            return name in {run[1], *(f"{night}: {stage}" for stage in stages.split(", "))}

        return [run for run in json.loads(self.python(RUNS)) if named(run)]

    def stage(self, name, patience=300):
        """The process that performs a stage, once it is at work."""

        def at_work():
            for process in psutil.process_iter(["cmdline", "cwd"]):
                with contextlib.suppress(psutil.Error):
                    words = process.info["cmdline"] or []
                    if "stage" in words and name in words and str(self.folder) in (process.info["cwd"] or ""):
                        return process
            return None

        return wait_for(at_work, f"{name} at work", patience, 0.05)

    def stage_of_this_run_or_the_next(self, name, night):
        """The process that performs a stage, once it is at work; where the night has ended without it, in a new run."""
        for _ in range(8):
            with contextlib.suppress(AssertionError):
                return self.stage(name, 60)
            if self.runs(f"night {night}")[-1][2] in OVER:
                self.go(night)
        raise AssertionError(f"{name} was never at work")

    def ended(self, name, attempt=0, patience=PROMPTLY):
        """The state in which the attempt's run has ended, promptly."""

        def over():
            found = self.runs(name)
            return found[attempt][2] if len(found) > attempt and found[attempt][2] in OVER else None

        return wait_for(over, f"attempt {attempt} of {name} over", patience, 1.0)

    def go(self, day):
        """Start the scheduled night of ``day``."""
        code = (
            "from prefect.deployments import run_deployment\n"
            f"run_deployment('scheduled/nightly', parameters={{'as_of': {day!r}}}, timeout=0)\n"
        )
        self.python(code)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    prefect, tracking = prefect_server(folder / "prefect").start(), mlflow_server(folder / "mlflow").start()
    one = Attacked(make_workspace(folder / "workspace", TINY), folder, prefect.url, tracking.url)
    one.prefect, one.tracking = prefect, tracking
    try:
        one.deploy()
        for pool in ("cpu", "gpu"):
            one.start_worker(pool, one.clone(pool))
        one.start_worker("night", one.workspace.root)
        yield one
    finally:
        one.stop()
        tracking.kill()
        prefect.kill()


def _outputs(lock):
    natural = ("runs/", "timings/", "reports/data_docs")
    return {o["path"]: o["md5"] for stage in lock.values() for o in stage["outs"] if not o["path"].startswith(natural)}


def test_a_night_attacked_in_stage_after_stage_ends_with_the_bytes_of_a_quiet_one(attacked, template):
    night = "2026-03-02"
    attacked.go(night)

    # The night's own process and its worker, at one blow: nobody is left to report.
    child = attacked.stage("validate")
    kill_tree(attacked.workers["night"].pid)
    attacked.workers["night"].wait()
    assert attacked.ended(f"night {night}") == "Crashed"
    wait_for(lambda: not child.is_running(), "the stage of a dead night is gone", PROMPTLY)
    attacked.start_worker("night", attacked.workspace.root)
    assert attacked.run("history", "--json", STILLHOUSE_POOLS="").stdout.count('"kind"') == 0, "no champion has moved"
    wait_for(lambda: all(run[2] in OVER for run in attacked.runs(f"{night}: validate")), "its run is over", PROMPTLY)
    attacked.go(night)

    # A stage's process alone.
    attacked.stage("train_teacher").send_signal(signal.SIGKILL)
    assert attacked.ended(f"{night}: train_teacher") == "Failed"

    # A worker and what it had started: only the missing heartbeat tells. It was on order with the teacher.
    child = attacked.stage("export_soft_targets", 400)
    kill_tree(attacked.workers["gpu"].pid)
    attacked.workers["gpu"].wait()
    assert not child.is_running()
    assert attacked.ended(f"{night}: export_soft_targets", attempt=1) == "Crashed"
    wait_for(lambda: json.loads(attacked.python(SLOTS))["active_slots"] == 0, "its slot is free", 30)
    attacked.start_worker("gpu", attacked.folder / "gpu")

    # A worker alone: what it had started goes on.
    attacked.stage("train_student@small", 400)
    attacked.workers["gpu"].send_signal(signal.SIGKILL)
    attacked.workers["gpu"].wait()
    assert attacked.ended(f"{night}: train_student@small", attempt=2) == "Completed"
    attacked.start_worker("gpu", attacked.folder / "gpu")

    # Prefect's own server, for a while.
    attacked.stage("package@small", 400)
    attacked.prefect.kill()
    time.sleep(15)
    attacked.prefect.start()

    # The tracking server, for a while, in the stage after that, of this night's run or of the next.
    attacked.stage_of_this_run_or_the_next("evaluate@small", night)
    attacked.tracking.kill()
    time.sleep(15)
    attacked.tracking.start()
    # Both are on order together: every run of either.
    wait_for(lambda: all(run[2] in OVER for run in attacked.runs(f"{night}: evaluate@small")), "all over", PROMPTLY)
    assert attacked.runs(f"{night}: evaluate@small")[-1][2] in ("Completed", "Failed")

    wait_for(lambda: attacked.runs(f"night {night}")[-1][2] in OVER, "the night's last run is over", 300, 1.0)
    if attacked.runs(f"night {night}")[-1][2] != "Completed":
        wait_for(lambda: all(run[2] in OVER for run in attacked.runs(f"night {night}")), "all over", PROMPTLY)
        attacked.go(night)
        wait_for(lambda: attacked.runs(f"night {night}")[-1][2] == "Completed", "the next attempt closes it", 400, 1.0)
    assert f"night/{night}/closed" in attacked.workspace.tags()
    assert _outputs(attacked.workspace.lock()) == _outputs(template.lock())
    assert json.loads(attacked.run("audit", "student@champion", "--json").stdout)["state"] == "verified"


def test_a_full_disk_in_the_remote_stops_the_night_in_one_line_and_loses_nothing(attacked, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system must be mounted, which takes root")
    try:
        for clone in (attacked.workspace.root, attacked.folder / "cpu", attacked.folder / "gpu"):
            _remote(attacked, clone, place / "remote")
        before = json.loads(attacked.run("history", "--json", STILLHOUSE_POOLS="").stdout)["champion"]
        said = attacked.run("run", "--as-of", "2026-03-03", code=2).stderr
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert json.loads(attacked.run("history", "--json", STILLHOUSE_POOLS="").stdout)["champion"] == before
    finally:
        for clone in (attacked.workspace.root, attacked.folder / "cpu", attacked.folder / "gpu"):
            _remote(attacked, clone, attacked.workspace.root / ".stillhouse" / "remote")
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
    attacked.run("run", "--as-of", "2026-03-03")
    assert "night/2026-03-03/closed" in attacked.workspace.tags()


def _remote(attacked, clone, place):
    words = ["dvc", "remote", "modify", "--local", "local", "url", str(place)]
    subprocess.run(words, cwd=clone, env=attacked.environment(clone), check=True, capture_output=True)
