"""Git tags that hold a night as it was: its code, dirty or not, beside DVC's lock.

A tag is made through a temporary index, so that branch, index and work tree
stay as they are. ``night/ID/open`` and ``night/ID/closed``: git cannot hold a
tag and a folder of the same name, hence no plain ``night/ID`` (ADR 0005).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from stillhouse.errors import NightError, one_line

__all__ = ["CLOSED", "LOCK", "OPEN", "commit_time", "nights", "read_at", "tag_commit", "tag_night"]

OPEN = "open"
CLOSED = "closed"

#: DVC's lock, which changes while a night goes on.
LOCK = "dvc.lock"

#: Who makes the commits: a fresh machine has no identity of its own.
_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Stillhouse"), ("EMAIL", "stillhouse@localhost"))
}

#: What is taken up even where git does not track it yet: never data, which may be large.
_CODE = ("src", "flows", "tasks", "dvc.yaml", "params.yaml", "requirements.txt", "pyproject.toml", ".dvc/config")


def _git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NightError(one_line(f"git {arguments[0]} must succeed in the workspace, it said: {done.stderr}"))
    return done.stdout.strip()


def nights(root: Path, state: str) -> list[str]:
    """Return the ids of the nights tagged ``open`` or ``closed``, oldest first."""
    names = _git(root, "for-each-ref", "--format=%(refname)", f"refs/tags/night/*/{state}").split()
    return sorted((name.split("/")[3] for name in names), key=_order)


def _order(night: str) -> tuple[str, int]:
    day, _, revision = night.partition(".")
    return day, int(revision or 1)


def tag_commit(root: Path, night: str, state: str) -> str | None:
    """Return the commit of the night's tag, or ``None`` where there is none."""
    listed = _git(root, "for-each-ref", "--format=%(objectname)", f"refs/tags/night/{night}/{state}")
    return listed or None


def commit_time(root: Path, night: str, state: str) -> datetime:
    """Return when the night's tag was made."""
    return datetime.fromisoformat(_git(root, "log", "-1", "--format=%cI", f"refs/tags/night/{night}/{state}"))


def read_at(root: Path, commit: str, path: str) -> str:
    """Return the text of ``path`` in ``commit``.

    Raises:
        NightError: the commit holds no such file.
    """
    return _git(root, "show", f"{commit}:{path}")


def tag_night(root: Path, night: str, state: str, message: str, files: Iterable[str]) -> str:
    """Tag the workspace as it is, with ``files`` added even where git ignores them.

    Args:
        root: the workspace, at the top of a git repository.
        night: the night's id.
        state: ``open`` or ``closed``; a tag of that name is moved, unless nothing but DVC's lock differs.
        message: the commit's message.
        files: paths below ``root``; those that do not exist are left out.

    Returns:
        The commit that the tag names.

    Raises:
        NightError: the workspace is no git repository, or git refuses.
    """
    with tempfile.TemporaryDirectory(prefix="stillhouse-index-") as folder:
        index = Path(folder) / "index"
        current = root / _git(root, "rev-parse", "--git-path", "index")
        if current.exists():
            shutil.copyfile(current, index)
        env = {"GIT_INDEX_FILE": str(index), **_IDENTITY}
        _git(root, "add", "--update", env=env)
        _git(root, "add", "--", *(name for name in _CODE if (root / name).exists()), env=env)
        _git(root, "add", "--force", "--", *(name for name in files if (root / name).exists()), env=env)
        tree = _git(root, "write-tree", env=env)
        head = _git(root, "for-each-ref", "--count=1", "--format=x", "refs/heads") and _git(root, "rev-parse", "HEAD")
        parents = ("-p", head) if head else ()
        before = tag_commit(root, night, state)
        if before and not _git(root, "diff", "--name-only", before, tree, "--", ".", f":(exclude){LOCK}"):
            return before
        commit = _git(root, "commit-tree", tree, *parents, "-m", message, env=env)
    _git(root, "update-ref", f"refs/tags/night/{night}/{state}", commit)
    return commit
