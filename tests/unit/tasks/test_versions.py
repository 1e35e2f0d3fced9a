import subprocess

import pytest

from stillhouse.errors import NightError
from tasks import versions


@pytest.fixture
def repository(tmp_path):
    for name in ("src", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "src/code.py").write_text("one\n")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / ".gitignore").write_text("/night.yaml\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    (tmp_path / "night.yaml").write_text("id: x\n")
    return tmp_path


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def test_a_tag_holds_dirty_code_and_named_files_but_no_stray_data(repository):
    (repository / "src/code.py").write_text("two\n")
    (repository / "src/new.py").write_text("new\n")
    (repository / "events.csv").write_text("large\n")
    commit = versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml", "missing.dvc"])
    held = git(repository, "ls-tree", "-r", "--name-only", commit).split()
    assert sorted(held) == [".gitignore", "night.yaml", "params.yaml", "src/code.py", "src/new.py"]
    assert versions.read_at(repository, commit, "src/code.py") == "two"


def test_a_tag_leaves_branch_index_and_tree_alone(repository):
    (repository / "src/code.py").write_text("two\n")
    before = (
        git(repository, "status", "--porcelain"),
        git(repository, "rev-parse", "HEAD"),
        git(repository, "ls-files", "-s"),
    )
    versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml"])
    assert (
        git(repository, "status", "--porcelain"),
        git(repository, "rev-parse", "HEAD"),
        git(repository, "ls-files", "-s"),
    ) == before


def test_open_and_closed_stand_side_by_side(repository):
    for state in (versions.OPEN, versions.CLOSED):
        versions.tag_night(repository, "2026-03-02", state, "m", ["night.yaml"])
    assert versions.nights(repository, versions.OPEN) == versions.nights(repository, versions.CLOSED) == ["2026-03-02"]


def test_a_tag_is_kept_when_nothing_but_the_lock_changed(repository):
    first = versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml", "dvc.lock"])
    (repository / "dvc.lock").write_text("changed\n")
    assert versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml", "dvc.lock"]) == first
    (repository / "params.yaml").write_text("a: 2\n")
    assert versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml", "dvc.lock"]) != first


def test_nights_are_ordered_by_day_then_revision(repository):
    for night in ("2026-03-03", "2026-03-02.10", "2026-03-02.2", "2026-03-02"):
        versions.tag_night(repository, night, versions.CLOSED, "m", ["night.yaml"])
    assert versions.nights(repository, versions.CLOSED) == ["2026-03-02", "2026-03-02.2", "2026-03-02.10", "2026-03-03"]


def test_no_identity_is_needed(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml"])


def test_a_repository_without_a_commit_can_be_tagged(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    assert versions.tag_night(tmp_path, "n1", versions.OPEN, "m", []) == versions.tag_commit(
        tmp_path, "n1", versions.OPEN
    )


def test_a_folder_that_is_no_repository_is_refused_in_one_line(tmp_path):
    with pytest.raises(NightError, match="git"):
        versions.nights(tmp_path, versions.OPEN)


def test_several_files_are_read_at_once_and_one_that_is_not_there_is_none(repository):
    (repository / "src/code.py").write_bytes(b"a\n\nb \x00\xff\n")
    commit = versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml"])
    held = versions.read_many(repository, commit, ["src/code.py", "gone", "night.yaml"])
    assert held == {"src/code.py": b"a\n\nb \x00\xff\n", "gone": None, "night.yaml": b"id: x\n"}


def test_a_tag_that_moved_still_holds_what_it_named_before(repository):
    first = versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml"])
    (repository / "params.yaml").write_text("a: 2\n")
    second = versions.tag_night(repository, "n1", versions.OPEN, "m", ["night.yaml"])
    assert first != second
    assert versions.contains(repository, "n1", versions.OPEN, first)
    assert versions.contains(repository, "n1", versions.OPEN, second)
    assert not versions.contains(repository, "n1", versions.OPEN, "0" * 40)
    assert not versions.contains(repository, "n2", versions.OPEN, first)


def test_every_closed_night_tells_the_ledgers_head_oldest_first(repository):
    heads = {"2026-03-10": "a" * 64, "2026-03-02": "b" * 64, "2026-03-02.2": "c" * 64}
    for night, head in heads.items():
        (repository / "params.yaml").write_text(f"a: {night}\n")
        message = versions.closing_message(night, head)
        versions.tag_night(repository, night, versions.CLOSED, message, ["night.yaml"])
    (repository / "params.yaml").write_text("a: none\n")
    empty = versions.closing_message("2026-03-01", None)
    versions.tag_night(repository, "2026-03-01", versions.CLOSED, empty, ["night.yaml"])
    assert versions.ledger_heads(repository) == [
        ("2026-03-02", "b" * 64),
        ("2026-03-02.2", "c" * 64),
        ("2026-03-10", "a" * 64),
    ]
