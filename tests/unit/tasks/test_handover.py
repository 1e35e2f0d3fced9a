"""What is up to date, and transfers: one that failed is tried again, one that fails each time says why."""

import shutil
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest
from dvc.exceptions import DvcException

from stillhouse.errors import NightError
from tasks import handover

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # DVC's own, where it says what a command needs


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(handover, "_WAITS", (0.0, 0.0))


@pytest.mark.parametrize("error", [DvcException("57 files failed"), OSError("connection reset")])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_networks_hiccup_does_not_end_a_night(error, failures):
    transfer = mock.Mock(side_effect=[error] * failures + [None])
    handover._again(transfer)
    assert transfer.call_count == failures + 1


def test_what_fails_each_time_is_raised():
    transfer = mock.Mock(side_effect=OSError("no route to host"))
    with pytest.raises(OSError, match="no route"):
        handover._again(transfer)
    assert transfer.call_count == 3


def test_another_error_is_not_tried_again():
    transfer = mock.Mock(side_effect=ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        handover._again(transfer)
    transfer.assert_called_once()


GRAPH = f"""
stages:
  double:
    cmd: {sys.executable} -c "open('out', 'w').write(open('given').read() * 2)"
    deps: [given]
    outs: [out]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A DVC repository with one stage, which is up to date."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    Repo.init(str(tmp_path)).close()
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "given").write_text("a")
    with Repo(str(tmp_path)) as repo:
        repo.reproduce()
    return tmp_path


def test_outputs_that_are_only_missing_or_spoilt_come_back(repository):
    assert handover.is_current(repository, "double")
    (repository / "out").unlink()
    assert handover.is_current(repository, "double")
    (repository / "out").write_text("spoilt")
    assert handover.is_current(repository, "double")
    assert (repository / "out").read_text() == "aa"


def test_outputs_that_the_cache_has_lost_are_not_current(repository):
    (repository / "out").unlink()
    shutil.rmtree(repository / ".dvc" / "cache")
    assert not handover.is_current(repository, "double")


@pytest.mark.parametrize("change", ["given", "command", "both"])
def test_what_takes_something_else_now_is_not_current_and_nothing_is_brought_back(repository, change):
    if change != "command":
        (repository / "given").write_text("b")
    if change != "given":
        (repository / "dvc.yaml").write_text(GRAPH.replace("* 2", "* 3"))
    (repository / "out").unlink()
    assert not handover.is_current(repository, "double")
    assert not (repository / "out").exists()


def test_a_stage_that_never_ran_is_not_current(repository):
    (repository / "dvc.lock").unlink()
    assert not handover.is_current(repository, "double")


@pytest.fixture
def pushed(repository, tmp_path_factory):
    """The repository, its output in a remote."""
    from dvc.repo import Repo

    store = tmp_path_factory.mktemp("remote")
    (repository / ".dvc" / "config").write_text(f"[core]\n    remote = far\n['remote \"far\"']\n    url = {store}\n")
    with Repo(str(repository)) as repo:
        repo.push(targets=["double"])
    (repository / "out").unlink()
    return repository, store


@pytest.mark.parametrize("lost", ["cache", "remote"])
def test_outputs_come_from_the_cache_or_else_from_the_remote(pushed, lost):
    from dvc.repo import Repo

    root, store = pushed
    shutil.rmtree(root / ".dvc" / "cache" if lost == "cache" else store)
    with Repo(str(root)) as repo:
        handover._bring(repo, ["double"])
    assert (root / "out").read_text() == "aa"


def test_an_entry_is_read_whole_while_another_stage_is_brought_up(repository):
    """Somebody's DVC rewrites its lock in place, under a lock of its own; a reader in between met an empty file."""
    from dvc.repo import Repo, lock_repo

    torn = threading.Event()

    def rewrite():
        with Repo(str(repository)) as repo, lock_repo(repo):
            whole = (repository / "dvc.lock").read_bytes()
            (repository / "dvc.lock").write_bytes(b"")
            torn.set()
            time.sleep(0.5)
            (repository / "dvc.lock").write_bytes(whole)

    thread = threading.Thread(target=rewrite)
    thread.start()
    assert torn.wait(10)
    try:
        assert handover.entry_of(repository, "double")["outs"][0]["path"] == "out"
        assert handover.upstream_entries(repository, ("double",))["double"].keys() == {"cmd", "outs"}
    finally:
        thread.join()


def test_an_entry_that_is_not_there_is_named(repository):
    with pytest.raises(NightError, match="must hold the stage treble, found double"):
        handover.entry_of(repository, "treble")
