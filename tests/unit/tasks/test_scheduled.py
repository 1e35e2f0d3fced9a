"""The scheduled night and whoever is at work in its workspace."""

import threading
import time

import filelock
import pytest

from flows import scheduled
from stillhouse.errors import NightError
from stillhouse.runner.stage import STATE


@pytest.fixture
def performed(tmp_path, monkeypatch):
    """What a scheduled flow of a workspace performs, as (second since the start, time asked for)."""
    began, done = time.monotonic(), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduled, "workspace_of_worker", lambda: tmp_path)
    monkeypatch.setattr(scheduled, "require_workspace", lambda _root: None)
    monkeypatch.setattr(scheduled, "mend", lambda _root: [])
    monkeypatch.setattr(scheduled, "_perform", lambda asked: done.append((time.monotonic() - began, asked.as_of)))
    (tmp_path / STATE).mkdir()
    return done


def test_it_waits_for_whoever_is_at_work_longer_than_a_person_would(tmp_path, performed):
    lock = filelock.FileLock(tmp_path / STATE / "run.lock", thread_local=False)
    lock.acquire()
    timer = threading.Timer(3.0, lock.release)
    timer.start()
    try:
        scheduled.scheduled.fn(as_of="2026-03-02")
    finally:
        timer.join()
    ((second, night),) = performed
    assert night == "2026-03-02"
    assert second > 2.9


def test_it_gives_up_in_one_line_where_the_other_does_not_end(tmp_path, performed, monkeypatch):
    monkeypatch.setattr(scheduled, "_PATIENCE", 0.2)
    with filelock.FileLock(tmp_path / STATE / "run.lock"), pytest.raises(NightError, match="one night runs at a time"):
        scheduled.scheduled.fn(as_of="2026-03-02")
    assert performed == []
