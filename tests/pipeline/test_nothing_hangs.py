"""Deaths on pools: whatever dies, the run ends, its slot is free, its children are gone, and the next attempt goes on.

A champion is there, and the night after it is attacked in stage after stage, for real: it must end with the bytes of a
night that nobody attacked, and nothing but its gate may move the champion. Then disks are full. Most of it is waiting
for what notices: it is part of the drill (``make drill``).
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import psutil
import pytest
from pools import Pools, kill_tree, mlflow_server, prefect_server, wait_for
from workspaces import TINY, make_workspace

from stillhouse.tracking import aliases, ledger_store

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(2400)]

#: Seconds within which a run must have ended.
PROMPTLY = 120.0

#: Seconds within which a slot is free once the run that held it is over.
AT_ONCE = 30.0

OVER = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")

#: How long a process that is slowed down works between two halts: a fraction of the shortest epoch here.
SLICE = 0.003


class Attacked(Pools):
    """Pools with the means to find what is at work, and to end it."""

    def ask(self, path, **wanted):
        """What Prefect's server answers."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.prefect.url}{path}", json.dumps(wanted).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def all_runs(self):
        """Every flow run, oldest first: [id, name, state, its type]."""
        found = sorted(self.ask("/flow_runs/filter", limit=200), key=lambda run: run["created"])
        assert len(found) < 200, "there may be more"
        return [[run["id"], run["name"], run["state_name"], run["state_type"]] for run in found]

    def runs(self, name):
        """Flow runs of that name, or those of a night's workers that the stage of that name was on order with."""

        def named(run):
            night, _, stages = run[1].partition(": ")
            return name in {run[1], *(f"{night}: {stage}" for stage in stages.split(", "))}

        return [run for run in self.all_runs() if named(run)]

    def holders(self, pool):
        """The runs that hold a slot of the pool."""
        status = self.ask(f"/work_pools/{pool}/concurrency_status")
        found = [run["id"] for queue in status["queues"] for run in queue["flow_runs"]]
        assert status["active_slots"] == len(found)
        return found

    def champion(self):
        """What is served, and every entry of the ledger: as they lie in the registry, nothing is mended on the way."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", self.tracking.url)
            return aliases.get_aliases(self.workspace.root), ledger_store.read(self.workspace.root)

    def at_work(self, name=None):
        """The processes that perform a stage of that name, or any."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if "stage" in words and name in (None, *words) and str(self.folder) in (process.info["cwd"] or ""):
                found.append(process)
        return found

    def stage(self, name, patience=300):
        """The process that performs a stage, once it is at work."""
        return wait_for(lambda: self.at_work(name), f"{name} at work", patience, 0.05)[0]

    def stage_of_this_run_or_the_next(self, name, night):
        """The process that performs a stage, once it is at work; where the night has ended without it, in a new run."""
        for _ in range(8):
            with contextlib.suppress(AssertionError):
                return self.stage(name, 60)
            if self.runs(f"night {night}")[-1][2] in OVER:
                self.go(night)
        raise AssertionError(f"{name} was never at work")

    def site(self, pool, night):
        """Where a worker performs the night's stages."""
        return self.folder / pool / ".stillhouse" / "sites" / night

    def kill_after_an_epoch(self, name, night):
        """Kill a stage that trains once it has put down what it resumes from; slowed down, so that it is not over."""
        process = self.stage(name)
        resume = self.site("gpu", night) / ".stillhouse" / "resume" / name
        while not list(resume.glob("*/training.safetensors")):
            process.send_signal(signal.SIGCONT)
            time.sleep(SLICE)
            if resume.exists():
                process.send_signal(signal.SIGSTOP)
        kill_tree(process.pid)

    def ended(self, name, attempt=0, patience=PROMPTLY):
        """The state in which the attempt's run has ended, promptly."""

        def over():
            found = self.runs(name)
            return found[attempt][2] if len(found) > attempt and found[attempt][2] in OVER else None

        return wait_for(over, f"attempt {attempt} of {name} over", patience, 1.0)

    def all_over(self, name, patience=PROMPTLY):
        """Wait until every run of that name has ended."""
        wait_for(lambda: all(run[2] in OVER for run in self.runs(name)), f"every {name} over", patience, 1.0)

    def freed(self, name, attempt):
        """Wait until nobody holds a slot of the pool ``gpu`` but an attempt after that one."""
        gone = {run[0] for run in self.runs(name)[: attempt + 1]}

        def free():
            return set(self.holders("gpu")) <= {run[0] for run in self.runs(name)} - gone

        wait_for(free, f"the slot of attempt {attempt} of {name} is free", AT_ONCE, 1.0)

    def at_rest(self, night):
        """Wait until nothing of the night is going on: its runs are over, no slot is held, no stage is at work."""

        def going_on(run):
            return run[3] in ("PENDING", "RUNNING", "CANCELLING") or (night in run[1] and run[2] not in OVER)

        wait_for(lambda: not any(map(going_on, self.all_runs())), f"every run of {night} over", PROMPTLY, 1.0)
        for pool in ("cpu", "gpu"):
            wait_for(lambda pool=pool: not self.holders(pool), f"the slots of {pool} are free", AT_ONCE, 1.0)
        wait_for(lambda: not self.at_work(), "no stage is at work", AT_ONCE)

    def go(self, day):
        """Start the scheduled night of ``day``."""
        code = (
            "from prefect.deployments import run_deployment\n"
            f"run_deployment('scheduled/nightly', parameters={{'as_of': {day!r}}}, timeout=0)\n"
        )
        self.python(code)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """Pools, and a champion of a quiet night before."""
    folder = tmp_path_factory.mktemp("attacked")
    prefect, tracking = prefect_server(folder / "prefect").start(), mlflow_server(folder / "mlflow").start()
    one = Attacked(make_workspace(folder / "workspace", TINY), folder, prefect.url, tracking.url)
    one.prefect, one.tracking = prefect, tracking
    try:
        one.run("run", STILLHOUSE_POOLS="")
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


def test_a_night_attacked_in_stage_after_stage_ends_with_the_bytes_of_a_quiet_one(attacked, second):
    night = "2026-03-03"
    before = attacked.champion()
    assert before[0]["champion"] == 1
    attacked.go(night)

    # The night's own process and its worker, at one blow: nobody is left to report.
    child = attacked.stage("validate")
    kill_tree(attacked.workers["night"].pid)
    attacked.workers["night"].wait()
    assert attacked.ended(f"night {night}") == "Crashed"
    wait_for(lambda: not child.is_running(), "the stage of a dead night is gone", PROMPTLY)
    attacked.at_rest(night)
    assert attacked.champion() == before
    attacked.start_worker("night", attacked.workspace.root)
    attacked.go(night)

    # A stage's process alone, once it has something to resume from.
    attacked.kill_after_an_epoch("train_teacher", night)
    assert attacked.ended(f"{night}: train_teacher") == "Failed"
    attacked.freed(f"{night}: train_teacher", 0)
    assert attacked.champion() == before

    # A worker and what it had started: only the missing heartbeat tells. It was on order with the teacher.
    child = attacked.stage("export_soft_targets", 400)
    said = (attacked.folder / "gpu.log").read_text()
    assert re.findall("train_teacher: training goes on after epoch [1-9]", said), "the attempt before this resumed"
    kill_tree(attacked.workers["gpu"].pid)
    attacked.workers["gpu"].wait()
    assert not child.is_running()
    assert attacked.ended(f"{night}: export_soft_targets", attempt=1) == "Crashed"
    attacked.freed(f"{night}: export_soft_targets", 1)
    assert attacked.champion() == before
    attacked.start_worker("gpu", attacked.folder / "gpu")

    # A worker alone: what it had started goes on.
    attacked.stage("export_soft_targets", 400)
    attacked.workers["gpu"].send_signal(signal.SIGKILL)
    attacked.workers["gpu"].wait()
    attacked.start_worker("gpu", attacked.folder / "gpu")

    # The tracking server, for a while, in the stage after that, of this night's run or of the next.
    attacked.stage_of_this_run_or_the_next("train_student@small", night)
    attacked.tracking.kill()
    time.sleep(15)
    attacked.tracking.start()
    assert attacked.champion() == before
    attacked.all_over(f"{night}: train_student@small")
    assert attacked.runs(f"{night}: export_soft_targets")[2][2] == "Completed", "whose worker was killed"
    assert attacked.runs(f"{night}: train_student@small")[-1][2] == "Completed", "it did not need the server"

    # Prefect's own server, for a while, likewise.
    attacked.stage_of_this_run_or_the_next("package@small", night)
    attacked.prefect.kill()
    time.sleep(15)
    assert attacked.champion() == before, "the night cannot have come to its gate"
    attacked.prefect.start()
    attacked.all_over(f"{night}: package@small")
    wait_for(lambda: attacked.runs(f"night {night}")[-1][2] in OVER, "the night's last run is over", PROMPTLY, 1.0)
    if attacked.runs(f"night {night}")[-1][2] != "Completed":
        attacked.at_rest(night)
        attacked.go(night)
        wait_for(lambda: attacked.runs(f"night {night}")[-1][2] == "Completed", "the next attempt closes it", 400, 1.0)
    attacked.at_rest(night)
    assert f"night/{night}/closed" in attacked.workspace.tags()
    assert _outputs(attacked.workspace.lock()) == _outputs(second.workspace.lock())
    after = attacked.champion()
    assert after[1][: len(before[1])] == before[1]
    assert [json.loads(one.text)["night"] for one in after[1][len(before[1]) :]] == [night] * 2, "its gate, and once"
    assert json.loads(attacked.run("audit", "student@champion", "--json").stdout)["state"] == "verified"


@contextlib.contextmanager
def _small_disk(place):
    """A file system of 64 MB at ``place``, an empty folder or one that it hides."""
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system must be mounted, which takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def _fill(place):
    """Leave no byte of room where ``place`` is; return what took it."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert shutil.disk_usage(place).free == 0
    return ballast


def _full_while_the_teacher_trains(attacked, night, place):
    """Fill ``place`` while a worker trains the night's teacher; what the night said is one line. Then make room."""
    before = attacked.champion()
    process = attacked.start("run", "--as-of", night)
    try:
        attacked.stage("train_teacher")
        ballast = _fill(place)
        _, said = process.communicate(timeout=PROMPTLY)
    finally:
        kill_tree(process.pid)
    assert process.returncode == 2, said
    opened, line = said.strip().splitlines()
    assert opened == f"night {night}: opened"
    attacked.at_rest(night)
    assert attacked.champion() == before
    ballast.unlink()
    return line


def test_a_full_disk_in_the_remote_stops_the_night_in_one_line_and_loses_nothing(attacked, tmp_path):
    night = "2026-03-04"
    clones = (attacked.workspace.root, attacked.folder / "cpu", attacked.folder / "gpu")
    with _small_disk(tmp_path / "small") as place:
        try:
            for clone in clones:
                _remote(attacked, clone, place / "remote")
            line = _full_while_the_teacher_trains(attacked, night, place)
            assert "No space left on device" in line
            teacher = attacked.site("gpu", night) / "models" / "teacher"
            made = {file: file.stat().st_mtime_ns for file in teacher.iterdir()}
            assert "goes on where it stopped" in attacked.run("run").stderr
            assert f"night/{night}/closed" in attacked.workspace.tags()
            assert {file: file.stat().st_mtime_ns for file in teacher.iterdir()} == made, "trained once"
        finally:
            for clone in clones:
                _remote(attacked, clone, attacked.workspace.root / ".stillhouse" / "remote")


def test_a_full_disk_of_a_worker_stops_the_night_in_one_line_and_the_next_attempt_goes_on(attacked):
    night = "2026-03-05"
    with _small_disk(attacked.folder / "gpu" / ".stillhouse") as place:
        line = _full_while_the_teacher_trains(attacked, night, place)
        assert "No space left on device" in line
        assert "goes on where it stopped" in attacked.run("run").stderr
        assert f"night/{night}/closed" in attacked.workspace.tags()
        attacked.at_rest(night)


def _remote(attacked, clone, place):
    words = ["dvc", "remote", "modify", "--local", "local", "url", str(place)]
    subprocess.run(words, cwd=clone, env=attacked.environment(clone), check=True, capture_output=True)
