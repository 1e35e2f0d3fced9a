"""Clones of the workspace for workers: code by git, data through DVC's remote, a cache shared or of their own."""

from __future__ import annotations

import configparser
import io
import shutil
import subprocess
from pathlib import Path

import filelock

from stillhouse.data.files import write_bytes
from stillhouse.errors import NightError, one_line
from stillhouse.runner.stage import STATE
from tasks.graph import repository

__all__ = ["make_clone", "scratch_clone"]

#: DVC's settings of one clone, which git ignores.
_CONFIG = Path(".dvc") / "config.local"


def make_clone(root: Path, place: Path, *, share_cache: bool = True) -> Path:
    """Make a clone of the workspace for a worker, or bring one that is there to the workspace's commit.

    Args:
        root: the workspace.
        place: the clone's folder.
        share_cache: use the workspace's DVC cache, which spares a second copy on one machine.

    Returns:
        The clone's folder.

    Raises:
        NightError: git or DVC refuses.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        head = _git(root, "rev-parse", "HEAD")
        if not (place / ".git").exists():
            fresh = place.with_name(f"{place.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            _git(root, "clone", "--quiet", "--no-tags", "--no-checkout", str(root), str(fresh))
            fresh.replace(place)
        _git(place, "fetch", "--quiet", "--no-tags", str(root), head)
        _git(place, "checkout", "--quiet", "--force", "--detach", head)
        _configure(root, place, share_cache=share_cache)
    return place


def scratch_clone(clone: Path, commit: str, place: Path) -> Path:
    """Make or move a clone of a worker's clone to ``commit``; what lies in it beside git's files stays.

    Raises:
        NightError: git refuses.
    """
    if not (place / ".git").exists():
        fresh = place.with_name(f"{place.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        _git(clone, "clone", "--quiet", "--shared", "--no-tags", "--no-checkout", str(clone), str(fresh))
        fresh.replace(place)
    if not (place / "dvc.yaml").exists() or _git(place, "rev-parse", "HEAD") != commit:
        _git(place, "checkout", "--quiet", "--force", "--detach", commit)
    _configure(clone, place, share_cache=True)
    return place


def _configure(root: Path, place: Path, *, share_cache: bool) -> None:
    """Let the clone use the remote of ``root``, and its cache where it is to be shared; secrets stay where they are."""
    (place / STATE).mkdir(exist_ok=True)
    with repository(root) as repo:
        remote, cache = repo.config["core"].get("remote"), repo.cache.local.path
        # DVC gives a folder's address in full here, and leaves others as they are.
        address = str(repo.config["remote"][remote]["url"]) if remote else ""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(root / _CONFIG)
    if remote:
        settings.setdefault(section := f"'remote \"{remote}\"'", {})  # DVC's own way to quote it
        settings[section]["url"] = address
    if share_cache:
        settings.setdefault("cache", {})
        settings["cache"]["dir"] = str(Path(cache).parents[1])
    text = io.StringIO()
    settings.write(text)
    content = text.getvalue().encode()
    path = place / _CONFIG
    if not path.exists() or path.read_bytes() != content:  # stages may be at work here, which read the file
        write_bytes(path, content)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NightError(one_line(f"git {arguments[0]} must succeed in {root.name}, it said: {done.stderr}"))
    return done.stdout.strip()
