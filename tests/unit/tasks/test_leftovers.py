"""What lies in a workspace's state and may go; what may be in use stays."""

import os
import subprocess
import sys

import filelock
import pytest

from tasks.leftovers import leftovers, put_away, size_of

LONG_AGO = 1_700_000_000


@pytest.fixture
def state(tmp_path):
    state = tmp_path / ".stillhouse"
    for name in (
        "compared/old",
        "compared/new",
        "serving/served",
        "serving/unserved",
        "reproduced-x/clone",
        "resume/a",
    ):
        (state / name).mkdir(parents=True)
        (state / name / "file").write_text("12345")
    (state / "records").mkdir()
    for name in ("kept", "gone"):
        (state / "records" / f"{name}.json").write_text("{}")
    (state / "previous.new").mkdir()
    (state / "tune" / "search").mkdir(parents=True)
    for name in ("compared/old", "serving/served", "serving/unserved", "reproduced-x"):
        for one in [*(state / name).rglob("*"), state / name]:
            os.utime(one, (LONG_AGO, LONG_AGO))
    return state


def found(state, **settings):
    settings = {"packages": {"served"}, "statements": {"kept"}, "keep_resume": False} | settings
    return {path.relative_to(state).as_posix() for path in leftovers(state.parent, **settings)}


def test_caches_that_rest_go_and_what_is_named_or_young_stays(state):
    assert found(state) == {
        *("compared/old", "serving/unserved", "records/gone.json", "reproduced-x", "previous.new", "resume"),
    }
    assert found(state, keep_resume=True) == found(state) - {"resume"}


def test_a_scratch_folder_in_which_somebody_works_stays(state):
    worker = subprocess.Popen(
        [sys.executable, "-c", "input()"], cwd=state / "reproduced-x/clone", stdin=subprocess.PIPE
    )
    try:
        assert "reproduced-x" not in found(state)
    finally:
        worker.communicate()
    assert "reproduced-x" in found(state)


def test_what_is_put_away_is_gone_and_so_is_what_a_kill_left_of_it(state):
    (state / "gone" / "half").mkdir(parents=True)
    places = list(leftovers(state.parent, packages=(), statements=(), keep_resume=False))
    assert sum(map(size_of, places)) == 5 * 5 + 2 * 2
    put_away(state.parent, places)
    assert not any(place.exists() for place in places)
    assert sorted(path.name for path in state.iterdir()) == ["compared", "records", "serving", "tune"]
    assert (state / "compared" / "new").exists()


def test_what_a_killed_search_held_goes_and_what_one_at_work_holds_stays(state):
    for name in ("killed", "working"):
        (state / "tune" / f"{name}.inputs" / "sequences").mkdir(parents=True)
    with filelock.FileLock(state / "tune" / "working.lock"):
        gone = {name for name in found(state) if name.startswith("tune")}
    assert gone == {"tune/killed.inputs"}
    assert not (state / "tune" / "killed.lock").exists(), "looking leaves nothing behind"
