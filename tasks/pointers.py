"""What DVC's pointers name: the outputs in every ``dvc.lock`` and ``.dvc`` file of commits and of the work tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from stillhouse.errors import NightError, one_line
from tasks.versions import LOCK

__all__ = ["holding", "in_commits", "in_refs", "in_tree", "outputs_named", "read_each", "tags"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PATTERNS = ("*.dvc", f"*{LOCK}")
#: Files that are asked for at a time: a lock of many stages is large.
_AT_ONCE = 200


def in_commits(root: Path, commits: Iterable[str], *, lock: bool = True) -> dict[str, str]:
    """Return MD5 → path of every output that a pointer in one of ``commits`` names; equal files are read once.

    Args:
        root: the workspace.
        commits: ids, or names that git takes for one.
        lock: read ``dvc.lock`` too; ``False``: ``.dvc`` files alone.

    Raises:
        NightError: git refuses, or a pointer cannot be read.
    """
    patterns = _PATTERNS if lock else _PATTERNS[:1]
    listed = _git(root, ["rev-list", "--objects", "--no-walk", "--stdin"], [*commits, "--", *patterns]).decode()
    blobs = dict(line.split(" ", 1) for line in listed.splitlines() if _is_pointer(line.partition(" ")[2]))
    found: dict[str, str] = {}
    for blob, data in read_each(root, blobs).items():
        found |= outputs_named(data or b"", blobs[blob])
    return found


def in_refs(root: Path) -> dict[str, str]:
    """Return MD5 → path of every output that a pointer at a branch, at ``HEAD`` or at a tag that is no night's names.

    Raises:
        NightError: as `in_commits`.
    """
    listed = _git(root, ["for-each-ref", "--format=%(objecttype) %(refname)"]).decode().splitlines()
    refs = [name for kind, _, name in (line.partition(" ") for line in listed) if kind in ("commit", "tag")]
    wanted = [name for name in refs if not name.startswith("refs/tags/night/")]
    head = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", "HEAD"], cwd=root, capture_output=True, check=False
    )
    return in_commits(root, [f"{name}^{{commit}}" for name in wanted] + ["HEAD"] * (head.returncode == 0))


def in_tree(root: Path) -> dict[str, str]:
    """Return MD5 → path of every output that a pointer in the work tree names, tracked by git or not.

    Raises:
        NightError: as `in_commits`.
    """
    names = _git(root, ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_PATTERNS]).split(b"\0")
    found: dict[str, str] = {}
    for name in {os.fsdecode(name) for name in names if name}:
        if _is_pointer(name) and (root / name).is_file():
            found |= outputs_named((root / name).read_bytes(), name)
    return found


def holding(root: Path, commits: Iterable[str], path: str) -> set[str]:
    """Return those of ``commits`` that hold a file at ``path``."""
    names = {f"{commit}:./{path}": commit for commit in commits}
    listed = _git(root, ["cat-file", "--batch-check"], names).splitlines()
    return {commit for commit, line in zip(names.values(), listed, strict=True) if not line.endswith(b" missing")}


def tags(root: Path) -> dict[str, str]:
    """Return tag → commit of every tag of a night, such as ``night/2026-03-02/open``."""
    listed = _git(root, ["for-each-ref", "--format=%(objectname) %(refname:strip=2)", "refs/tags/night/"]).decode()
    return {name: commit for commit, _, name in (line.partition(" ") for line in listed.splitlines())}


def read_each(root: Path, objects: Iterable[str]) -> dict[str, bytes | None]:
    """Return the bytes of each git object, named by its id or as ``COMMIT:PATH``; ``None`` for one that is not there.

    Raises:
        NightError: git refuses.
    """
    names = list(objects)
    found: dict[str, bytes | None] = {}
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        rest = _git(root, ["cat-file", "--batch"], part)
        for name in part:
            head, _, rest = rest.partition(b"\n")
            if head.endswith(b" missing"):
                found[name] = None
                continue
            size = int(head.split()[-1])
            found[name], rest = rest[:size], rest[size + 1 :]
    return found


def outputs_named(data: bytes, where: str) -> dict[str, str]:
    """Return MD5 → path of every output that a ``dvc.lock`` or a ``.dvc`` file names; a folder's ends in ``.dir``.

    Args:
        data: the file's bytes.
        where: its name, for errors.

    Raises:
        NightError: it is no such file.
    """
    try:
        document = yaml.load(data, Loader=_LOADER) or {}  # noqa: S506  # a safe loader, in C where there is one
        holders = list(document["stages"].values()) if isinstance(document.get("stages"), dict) else [document]
        return {md5: path for holder in holders for out in holder.get("outs") or () for md5, path in _named(out)}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise NightError(
            one_line(f"{where} must be a file of DVC's to know what it keeps, found {type(error).__name__}: {error}")
        ) from None


def _named(out: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    path = str(out.get("path", ""))
    if "md5" in out:
        yield str(out["md5"]), path
    for file in out.get("files") or ():  # a folder of which each file has a version of its own
        if "md5" in file:
            yield str(file["md5"]), f"{path}/{file.get('relpath', '')}"


def _is_pointer(path: str) -> bool:
    name = PurePosixPath(path).name
    return name == LOCK or (name.endswith(".dvc") and name != ".dvc")


def _git(root: Path, arguments: Sequence[str], lines: Iterable[str] | None = None) -> bytes:
    text = None if lines is None else "".join(f"{line}\n" for line in lines).encode()
    done = subprocess.run(["git", *arguments], cwd=root, input=text, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        raise NightError(one_line(f"git {arguments[0]} must succeed in the workspace, it said: {said}"))
    return done.stdout
