"""Files that DVC rewrites in place survive a kill in the middle of a write."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo
from filelock import FileLock

from stillhouse.errors import NightError
from tasks import mending
from tasks.mending import keep, keep_or_forget, look, mend, mend_readers

LOCK = {"schema": "2.0", "stages": {"one": {"cmd": "true", "outs": [{"path": "a", "md5": "0" * 32, "size": 1}]}}}


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


@pytest.mark.parametrize("left", ["", "schema: '2.0'\nstages:\n  one:\n    cmd: tr", "stages: [\n", "\x00\n"])
def test_a_half_written_lock_gives_way_to_the_last_whole_one(tmp_path: Path, left: str) -> None:
    whole = yaml.safe_dump(LOCK)
    lock = write(tmp_path / "dvc.lock", whole)
    keep(tmp_path)
    lock.write_text(left)
    keep(tmp_path)  # a torn file is never what is kept
    assert mend(tmp_path) == ["dvc.lock"]
    assert lock.read_text() == whole
    assert mend(tmp_path) == []


def test_where_there_is_no_room_for_a_copy_an_older_one_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = write(tmp_path / "dvc.lock", yaml.safe_dump(LOCK))
    keep(tmp_path)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mending, "write_bytes", full)
    keep_or_forget(tmp_path)  # nothing to write
    assert (tmp_path / ".stillhouse" / "dvc" / "dvc.lock").read_text() == lock.read_text()
    lock.write_text(yaml.safe_dump({**LOCK, "stages": {}}))
    keep_or_forget(tmp_path)
    assert not (tmp_path / ".stillhouse" / "dvc" / "dvc.lock").exists()


def test_without_a_whole_copy_a_half_written_lock_goes(tmp_path: Path) -> None:
    lock = write(tmp_path / "dvc.lock", "schema: '2.0'\nstages:\n  one:\n    cmd: tr")
    assert mend(tmp_path) == ["dvc.lock"]
    assert not lock.exists()


def test_what_is_whole_or_not_there_is_left_alone(tmp_path: Path) -> None:
    lock = write(tmp_path / "dvc.lock", yaml.safe_dump(LOCK))
    assert mend(tmp_path) == []
    assert yaml.safe_load(lock.read_text()) == LOCK
    assert not (tmp_path / "previous.dvc").exists()


@pytest.mark.parametrize(("left", "stands"), [("", False), ('{"read": {', False), ('{"read": {}, "write": {}}', True)])
def test_a_half_written_table_of_readers_goes(tmp_path: Path, left: str, stands: bool) -> None:
    table = write(tmp_path / "rwlock", left)
    mend_readers(SimpleNamespace(tmp_dir=str(tmp_path), config={"core": {}}))
    assert table.exists() is stands


def test_dvc_itself_works_again(tmp_path: Path) -> None:
    def dvc(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "dvc"), *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc("init", "-q")
    write(tmp_path / "dvc.yaml", "stages:\n  one:\n    cmd: echo 1 > a\n    outs: [a]\n")
    dvc("repro", "-q")
    keep(tmp_path)
    lock = tmp_path / "dvc.lock"
    write(lock, lock.read_text()[:40])
    write(tmp_path / ".dvc" / "tmp" / "rwlock", "")
    assert mend(tmp_path) == ["dvc.lock"]
    mend_readers(SimpleNamespace(tmp_dir=str(tmp_path / ".dvc" / "tmp"), config={"core": {}}))
    assert "up to date" in dvc("status")


def torn(root: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root))
    lock = write(root / "dvc.lock", yaml.safe_dump(LOCK))
    (root / ".stillhouse").mkdir()
    keep(root)
    lock.write_text("stages: [\n")
    return lock


def reading(root: Path) -> str:
    try:
        return str(yaml.safe_load((root / "dvc.lock").read_text())["schema"])
    except (yaml.YAMLError, TypeError) as error:  # TypeError: cut off before its first word
        raise NightError("torn") from error


def test_a_reader_mends_what_a_killed_run_left(tmp_path: Path) -> None:
    torn(tmp_path)
    assert look(tmp_path, lambda: reading(tmp_path)) == "2.0"


def test_a_reader_waits_for_a_run_that_is_writing_and_leaves_its_file_alone(tmp_path: Path) -> None:
    lock = torn(tmp_path)
    with FileLock(tmp_path / ".stillhouse" / "run.lock"):
        later = threading.Timer(0.3, lambda: lock.write_text("schema: '3.0'\n"))
        later.start()
        assert look(tmp_path, lambda: reading(tmp_path)) == "3.0"


def test_a_reader_says_what_else_is_wrong(tmp_path: Path) -> None:
    torn(tmp_path)
    write(tmp_path / "dvc.lock", yaml.safe_dump(LOCK))
    looks = []

    def fails() -> None:
        looks.append(1)
        raise NightError("another reason")

    with pytest.raises(NightError, match="another reason"):
        look(tmp_path, fails)
    assert len(looks) == 2  # it might have been torn when it was read, and whole a moment later


def test_a_reader_that_came_between_two_states_looks_again(tmp_path: Path) -> None:
    lock = torn(tmp_path)
    looks = []

    def finished_in_between() -> str:
        looks.append(1)
        if len(looks) == 1:
            try:
                return reading(tmp_path)
            finally:
                lock.write_text(yaml.safe_dump(LOCK))
        return reading(tmp_path)

    (tmp_path / ".stillhouse" / "dvc" / "dvc.lock").unlink()  # mended, it would be gone
    assert look(tmp_path, finished_in_between) == "2.0"
    assert lock.exists()


def test_a_reader_leaves_alone_what_dvc_itself_is_writing(tmp_path: Path) -> None:
    lock = torn(tmp_path)
    with Repo(str(tmp_path)) as repo, repo.lock:
        later = threading.Timer(0.3, lambda: lock.write_text("schema: '3.0'\n"))
        later.start()
        assert look(tmp_path, lambda: reading(tmp_path)) == "3.0"
