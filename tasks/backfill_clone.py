"""The clone that a backfill's nights are kept in: the workspace's code as it is, and none of its nights (ADR 0017)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json, write_json
from stillhouse.errors import NightError, ParamsError, one_line
from stillhouse.params.base import build
from stillhouse.params.document import load_document
from stillhouse.params.source import SourceSpec
from stillhouse.runner.stage import STATE
from tasks import versions
from tasks.clones import make_clone
from tasks.night import NIGHT_FILE
from tasks.plan import Request, source_asked

__all__ = ["is_backfill", "make_backfill", "source_of_past"]

#: File of a clone's state that says what it was made for.
_NOTE = "backfill.json"
#: A night's own files, which the clone must not begin with.
_NOT_TAKEN = (versions.LOCK, "previous.dvc", NIGHT_FILE)


def is_backfill(root: Path) -> bool:
    """Say whether a workspace is the clone of a backfill."""
    return (root / STATE / _NOTE).is_file()


def source_of_past(root: Path, asked: str | None) -> dict[str, Any]:
    """Return the source as the clone reads it: found from anywhere, and no row before its time.

    Args:
        root: the live line's workspace.
        asked: as for a run; ``None``: as params.yaml has it.

    Raises:
        ParamsError: the source is impossible, or its rows have no times.
        SourceError: nothing is where it should be.
    """
    from stillhouse.data.sources import is_position_ordered

    plain = load_document(root / "params.yaml")[1]["source"]
    chosen = source_asked(Request(root, source=asked), plain)
    spec = build(SourceSpec, chosen, "params.yaml: source")
    if is_position_ordered(spec):
        raise ParamsError(
            "past nights must be told apart by the times of rows, found positions (params.yaml: source.columns): "
            "give a source with timestamps"
        )
    for name in ("path", "items_path"):
        if chosen.get(name) is not None:
            chosen[name] = os.path.normpath(root / chosen[name])
    if chosen.get("url") is not None:
        chosen["url"] = _absolute(root, chosen["url"])
    return {**chosen, "later_rows": "leave"}


def _absolute(root: Path, url: str) -> str:
    """Return an SQLAlchemy URL whose SQLite file is named from the root of the file system."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    file = parsed.database
    if not parsed.drivername.startswith("sqlite") or not file or file.startswith((":memory:", "file:")):
        return url
    return parsed.set(database=os.path.normpath(root / file)).render_as_string(hide_password=False)


def make_backfill(root: Path, place: Path, source: Mapping[str, Any]) -> list[str]:
    """Make the clone, whole or not at all, and return what is to be said of one that was there.

    Args:
        root: the live line's workspace.
        place: the clone's folder; the caller holds the backfill of that name.
        source: what `source_of_past` returned.

    Raises:
        NightError: one that was made for another source is there, or git refuses.
    """
    commit = versions.code_commit(root, f"The workspace as backfill {place.name} found it", _NOT_TAKEN)
    code = _git(root, "rev-parse", f"{commit}^{{tree}}")
    if place.exists():
        note = read_json(place / STATE / _NOTE)
        if note["source"] != source:
            raise NightError(
                f"backfill {place.name} must go on with the source that it began with: give another --name"
            )
        changed = "the workspace's code or settings have changed since: it goes on with those that it began with"
        return [changed] if note["code"] != code else []
    fresh = place.with_name(f"{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    make_clone(root, fresh)
    Path(f"{fresh}.lock").unlink(missing_ok=True)
    # The commit is nobody's branch: git hands out such a one when it is told that it may.
    _git(
        fresh,
        *("fetch", "--quiet", "--no-tags", "--upload-pack", "git -c uploadpack.allowAnySHA1InWant=true upload-pack"),
        *(str(root), commit),
    )
    _git(fresh, "checkout", "--quiet", "--force", "-B", "backfill", commit)
    _git(fresh, "remote", "remove", "origin")  # nothing is pushed into the live line by mistake
    _set_source(fresh / "params.yaml", source)
    write_json(fresh / STATE / _NOTE, {"source": dict(source), "code": code})
    fresh.replace(place)
    return []


def _set_source(path: Path, source: Mapping[str, Any]) -> None:
    """Change what differs in the section ``source``; comments and all else stay as they are."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(path)) as document:
        for name, value in source.items():
            if document["source"].get(name) != value:
                document["source"][name] = value


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NightError(one_line(f"git {arguments[0]} must succeed for a backfill, it said: {done.stderr}"))
    return done.stdout.strip()
