"""What a worker does for a night, as far as no server is needed."""

import filelock
import pytest

from tasks import worksite


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
