"""Small files of our own in DVC's remote: whole or not there."""

import subprocess

import pytest
from workspaces import TINY, make_workspace

from stillhouse.errors import NightError
from tasks import remote


@pytest.fixture
def root(tmp_path):
    return make_workspace(tmp_path / "workspace", TINY).root


def test_what_was_put_is_got_and_listed(root):
    remote.put(root, "nights/a/open.bundle", b"one")
    remote.put(root, "nights/a/open.bundle", b"two")
    remote.put(root, "nights/b/open.bundle", b"")
    assert remote.get(root, "nights/a/open.bundle") == b"two"
    assert remote.get(root, "nights/b/open.bundle") == b""
    assert remote.get(root, "nights/c/open.bundle") is None
    assert remote.names(root, "nights") == ["nights/a/open.bundle", "nights/b/open.bundle"]
    assert remote.names(root, "nothing") == []


def test_nothing_half_written_is_left_beside(root):
    remote.put(root, "a", b"one")
    assert [file.name for file in (root / ".stillhouse/remote/stillhouse").iterdir()] == ["a"]


def test_a_trial_write_says_what_is_wrong_and_leaves_nothing(root):
    assert remote.trouble(root) == ""
    assert list((root / ".stillhouse" / "remote" / "stillhouse").iterdir()) == []
    (root / ".stillhouse" / "remote" / "stillhouse").rmdir()
    (root / ".stillhouse" / "remote" / "stillhouse").write_text("a file where a folder must be")
    assert "DVC's remote local must be reachable" in remote.trouble(root)


def test_a_workspace_without_a_remote_is_one_line(root):
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    with pytest.raises(NightError, match="the workspace must have a DVC remote"):
        remote.get(root, "a")


def test_a_store_that_is_away_is_one_line(root, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with (root / ".dvc" / "config.local").open("a") as config:
        config.write("['remote \"local\"']\n    url = s3://nowhere/nights\n    endpointurl = http://127.0.0.1:9\n")
    with pytest.raises(NightError, match="DVC's remote local must be reachable"):
        remote.get(root, "a")


def test_a_remote_that_cannot_be_written_is_one_line(root):
    (root / ".stillhouse").mkdir(exist_ok=True)
    (root / ".stillhouse" / "remote").write_text("a file where a folder must be")
    with pytest.raises(NightError, match="DVC's remote local must be reachable"):
        remote.put(root, "a", b"one")
