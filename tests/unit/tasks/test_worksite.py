"""What a worker does for a night, as far as no server is needed."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from stillhouse.errors import DataError
from tasks import gpus, worksite
from tasks.order import Order, Step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # DVC's own, where it says what a command needs


def test_a_second_attempt_waits_for_the_first_and_then_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(worksite, "_PREDECESSOR", 0.1)
    site = tmp_path / "2026-03-02"
    with (
        worksite._alone(site, "prepare"),
        pytest.raises(RuntimeError, match="an earlier attempt at prepare is at work"),
        worksite._alone(site, "prepare"),
    ):
        pass
    with worksite._alone(site, "prepare"), worksite._alone(site, "validate"):
        pass


def test_a_clone_that_somebody_holds_is_let_go_another_time(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    held = sorted(tmp_path.iterdir(), key=lambda one: one.stat().st_mtime)[0]
    with filelock.FileLock(f"{held}.lock"):
        worksite._let_go(tmp_path)
        assert held.exists()
    worksite._let_go(tmp_path)
    assert not held.exists()


GRAPH = f"""
stages:
  a:
    cmd: {sys.executable} -c "open('a.out', 'w').write(open('given').read() * 2)"
    deps: [given]
    outs: [a.out]
  b:
    cmd: {sys.executable} -c "open('b.out', 'w').write(open('a.out').read()[:2])"
    deps: [a.out]
    outs: [b.out]
  c:
    cmd: {sys.executable} -c "open('c.out', 'w').write(open('b.out').read().upper())"
    deps: [b.out]
    outs: [c.out]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A clone at a night's open tag, with a remote; its last night made ``aaaa`` of ``aa``."""
    from dvc.repo import Repo

    root, store = tmp_path / "site", tmp_path / "store"
    root.mkdir()
    monkeypatch.chdir(root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root)).close()
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = far\n['remote \"far\"']\n    url = {store}\n")
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "given").write_text("aa")
    with Repo(str(root)) as repo:
        repo.reproduce()
        repo.push()
    monkeypatch.setattr(worksite, "_site", lambda _order, _clone: root)
    monkeypatch.setattr(worksite, "code_digest", lambda: "code")
    return root


def order(*stages, code="code"):
    return Order("2026-03-02", "c", tuple(Step(name, {}, "run") for name in stages), code, (), 60)


def test_the_stages_of_an_order_are_performed_and_answered_one_after_the_other(site):
    (site / "given").write_text("xy")
    answers = worksite.carry_out(order("a", "b", "c"), site)
    assert next(answers).stage == "a"
    assert (site / "a.out").read_text() == "xyxy"
    assert (site / "b.out").read_text() == "aa", "an answer is given before the next stage begins"
    rest = list(answers)
    assert [done.stage for done in rest] == ["b", "c"]
    assert [done.entry["outs"][0]["path"] for done in rest] == ["b.out", "c.out"]
    assert (site / "c.out").read_text() == "XY"
    shutil.rmtree(site / ".dvc" / "cache")
    (site / "c.out").unlink()
    assert next(iter(worksite.carry_out(order("c"), site))).error is None, "its output is in the remote"


def test_an_order_ends_before_a_stage_that_only_lacks_its_outputs(site):
    """`a` changes in what does not matter to `b`: the night has b's outputs, or orders it by itself."""
    (site / "given").write_text("aab")
    for name in ("b.out", "c.out"):
        (site / name).unlink()
    assert [done.stage for done in worksite.carry_out(order("a", "b", "c"), site)] == ["a", "b"]
    assert (site / "b.out").read_text() == "aa"
    assert not (site / "c.out").exists()
    assert [done.stage for done in worksite.carry_out(order("c"), site)] == ["c"]
    assert (site / "c.out").read_text() == "AA"


def test_a_known_error_is_the_last_answer(site, monkeypatch):
    def refuse(_site, name, _environment):
        raise DataError(f"{name} must hold rows")

    (site / "given").write_text("xy")
    monkeypatch.setattr(worksite, "bring_up_to_date", refuse)
    (done,) = worksite.carry_out(order("a", "b"), site)
    assert (done.stage, done.known, done.error) == ("a", "DataError", "a must hold rows")


def test_a_full_disk_is_a_known_error_and_no_other_refusal_of_the_disk_is(site, monkeypatch):
    (site / "given").write_text("xy")
    monkeypatch.setattr(worksite, "bring_up_to_date", lambda *_: Path("/dev/full").write_text("x"))
    (done,) = worksite.carry_out(order("a", "b"), site)
    assert (done.stage, done.known) == ("a", "NightError")
    assert done.error.startswith(f"stage a must find room in {site}, got: [Errno 28] No space left on device")
    monkeypatch.setattr(worksite, "bring_up_to_date", lambda *_: Path("/dev/null/none").write_text("x"))
    with pytest.raises(NotADirectoryError):
        list(worksite.carry_out(order("a", "b"), site))


def test_a_worker_of_other_code_answers_so_and_begins_nothing(site):
    (done,) = worksite.carry_out(order("a", "b", code="other"), site)
    assert (done.stage, done.known) == ("a", "NightError")
    assert "must run the night's own code" in done.error


def test_a_stage_that_needs_a_gpu_sees_one_that_nobody_holds(site, monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "_LOCKS", tmp_path / "locks")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    monkeypatch.setenv("PATH", "/bin:/usr/bin")  # nobody's nvidia-smi
    stages = "{cmd: printenv CUDA_VISIBLE_DEVICES > %s.out, outs: [%s.out]}"
    (site / "dvc.yaml").write_text(f"stages: {{{', '.join(f'{one}: {stages % (one, one)}' for one in 'xyz')}}}")
    for stage, resource, device, seen in (
        ("x", "gpu", "auto", "1"),
        ("y", "gpu", "cpu", "0,1"),
        ("z", "cpu", "auto", "0,1"),
    ):
        (site / "params.yaml").write_text(f"compute: {{device: {device}}}")
        with gpus.own_gpu():
            (done,) = worksite.carry_out(replace(order(stage), resource=resource), site)
        assert done.error is None
        assert (site / f"{stage}.out").read_text() == f"{seen}\n", (resource, device)
