"""Git tags that hold a night as it was: its code, dirty or not, beside DVC's lock.

A tag is made through a temporary index, so that branch, index and work tree
stay as they are. ``night/ID/open`` and ``night/ID/closed``: git cannot hold a
tag and a folder of the same name, hence no plain ``night/ID`` (ADR 0005).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from stillhouse.errors import NightError, ParamsError, one_line

__all__ = [
    "CLOSED",
    "LOCK",
    "OPEN",
    "bundle",
    "closing_message",
    "code_commit",
    "commit_time",
    "contains",
    "differing",
    "ledger_heads",
    "nights",
    "read_at",
    "read_many",
    "remove_tag",
    "require_workspace",
    "tag_commit",
    "tag_night",
    "unbundle",
]

OPEN = "open"
CLOSED = "closed"

#: A night's id: its day, perhaps its time, perhaps a revision.
_ID = re.compile(r"[0-9T-]+(\.\d+)?")

#: What a closed night's message names the ledger's head by.
_HEAD = "Ledger-Head"

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
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise NightError("git must be installed and on PATH, found none") from None
    if done.returncode:
        raise NightError(one_line(f"git {arguments[0]} must succeed in the workspace, it said: {done.stderr}"))
    return done.stdout.strip()


def nights(root: Path, state: str) -> list[str]:
    """Return the ids of the nights tagged ``open`` or ``closed``, oldest first."""
    names = _git(root, "for-each-ref", "--format=%(refname)", f"refs/tags/night/*/{state}").split()
    found = [name.split("/")[3] for name in names]
    return sorted((name for name in found if _ID.fullmatch(name)), key=_order)


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
    return _git(root, "show", f"{commit}:./{path}")


def read_many(root: Path, commit: str, paths: Iterable[str]) -> dict[str, bytes | None]:
    """Return the bytes of each of ``paths`` in ``commit``; ``None`` for one that it does not hold.

    Raises:
        NightError: git refuses.
    """
    names = list(paths)
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        input="".join(f"{commit}:./{name}\n" for name in names).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise NightError(one_line(f"git cat-file must succeed in the workspace, it said: {done.stderr.decode()}"))
    found: dict[str, bytes | None] = {}
    rest = done.stdout
    for name in names:
        head, _, rest = rest.partition(b"\n")
        if head.endswith(b" missing"):
            found[name] = None
            continue
        size = int(head.split()[-1])
        found[name], rest = rest[:size], rest[size + 1 :]
    return found


def differing(root: Path, before: str, after: str) -> list[str]:
    """Return the files of code and settings in which two commits of a night differ, its own files apart."""
    own = [f":(exclude){name}" for name in (LOCK, "night.yaml", "previous.dvc")]
    return _git(root, "diff", "--name-only", before, after, "--", ".", *own).splitlines()


def contains(root: Path, night: str, state: str, commit: str) -> bool:
    """Say whether the night's tag names ``commit``, or a commit that it was moved on from."""
    tagged = tag_commit(root, night, state)
    if tagged is None or tagged == commit:
        return tagged is not None
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", commit, tagged], cwd=root, capture_output=True, check=False
    )
    return done.returncode == 0


def _head(root: Path) -> str | None:
    """Return the commit that is checked out, ``None`` in a repository without one."""
    try:
        return _git(root, "rev-parse", "--quiet", "--verify", "HEAD")
    except NightError:
        return None


def closing_message(night: str, ledger_head: str | None) -> str:
    """Return the message of a closed night's commit, which anchors the ledger's head."""
    return f"Night {night}, closed\n\n{_HEAD}: {ledger_head or 'none'}"


def ledger_heads(root: Path) -> list[tuple[str, str]]:
    """Return (night, hash of the ledger's head) for each closed night whose tag names one, oldest first."""
    listed = _git(root, "for-each-ref", "--format=%(refname)%00%(contents)%01", f"refs/tags/night/*/{CLOSED}")
    found = []
    for record in listed.split("\x01"):
        name, _, message = record.strip().partition("\x00")
        head = re.search(rf"^{_HEAD}: ([0-9a-f]{{64}})$", message, re.MULTILINE)
        if head is not None and _ID.fullmatch(night := name.split("/")[3]):
            found.append((night, head.group(1)))
    return sorted(found, key=lambda one: _order(one[0]))


def require_workspace(root: Path) -> None:
    """Refuse a folder in which no night can be kept.

    Raises:
        ParamsError: there is no params.yaml or dvc.yaml.
        NightError: it is not the top of a git repository.
    """
    for name in ("params.yaml", "dvc.yaml"):
        if not (root / name).is_file():
            raise ParamsError(
                f"{name} must exist, found none in {root}: run from a Stillhouse workspace, or name one with -C"
            )
    if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
        raise NightError(f"a workspace must be the top of a git repository, found {root} inside another: clone it anew")


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
    with _index(root) as env:
        _git(root, "add", "--force", "--", *(name for name in files if (root / name).exists()), env=env)
        tree = _git(root, "write-tree", env=env)
        before = tag_commit(root, night, state)
        if before and not _git(root, "diff", "--name-only", before, tree, "--", ".", f":(exclude){LOCK}"):
            return before
        # A tag that moves keeps what it named before among its commit's parents: a registered record may name it.
        parents = [word for parent in (_head(root), before) if parent for word in ("-p", parent)]
        commit = _git(root, "commit-tree", tree, *parents, "-m", message, env=env)
    _git(root, "update-ref", f"refs/tags/night/{night}/{state}", commit)
    return commit


def remove_tag(root: Path, night: str, state: str, commit: str) -> None:
    """Remove the night's tag, provided that it still names ``commit``.

    Raises:
        NightError: it names another by now, or git refuses.
    """
    _git(root, "update-ref", "-d", f"refs/tags/night/{night}/{state}", commit)


def code_commit(root: Path, message: str, without: Iterable[str]) -> str:
    """Return a commit of the workspace's code as it is, dirty or not; nothing names it, so git may let it go again.

    Args:
        root: the workspace, at the top of a git repository.
        message: the commit's message.
        without: files that are left out even where git tracks them.

    Raises:
        NightError: the workspace is no git repository, or git refuses.
    """
    with _index(root) as env:
        _git(root, "rm", "--cached", "--force", "--quiet", "--ignore-unmatch", "--", *without, env=env)
        tree = _git(root, "write-tree", env=env)
        parents = [word for parent in (_head(root),) if parent for word in ("-p", parent)]
        return _git(root, "commit-tree", tree, *parents, "-m", message, env=env)


@contextmanager
def _index(root: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a temporary index that holds tracked files as they are, and new files of code."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-index-") as folder:
        index = Path(folder) / "index"
        current = root / _git(root, "rev-parse", "--git-path", "index")
        if current.exists():
            shutil.copyfile(current, index)
        env = {"GIT_INDEX_FILE": str(index), **_IDENTITY}
        _git(root, "add", "--update", env=env)
        _git(root, "add", "--", *(name for name in _CODE if (root / name).exists()), env=env)
        yield env


def bundle(root: Path, night: str, state: str) -> bytes:
    """Return the night's tag as a git bundle of what a clone at the same ``HEAD`` lacks.

    Raises:
        NightError: there is no such tag, or git refuses.
    """
    tag = f"refs/tags/night/{night}/{state}"
    with tempfile.TemporaryDirectory(prefix="stillhouse-bundle-") as folder:
        file = Path(folder) / "bundle"
        head = _head(root)
        _git(root, "bundle", "create", "--quiet", str(file), tag, *(["--not", head] if head else []))
        return file.read_bytes()


def unbundle(root: Path, data: bytes, night: str, state: str) -> str:
    """Take the night's tag out of a bundle, over one of that name, and return its commit.

    Raises:
        NightError: the bundle is not whole, or the clone lacks the commit that it builds on.
    """
    tag = f"refs/tags/night/{night}/{state}"
    with tempfile.TemporaryDirectory(prefix="stillhouse-bundle-") as folder:
        file = Path(folder) / "bundle"
        file.write_bytes(data)
        _git(root, "fetch", "--quiet", "--no-tags", str(file), f"+{tag}:{tag}")
    return tag_commit(root, night, state) or ""
