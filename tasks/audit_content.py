"""Part of an audit: the content behind each link, read again, and the nights that it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stillhouse.data.files import NONE, NONE_BYTES
from stillhouse.lineage.audit import Link, altered, missing, noted, verified
from tasks import versions
from tasks.audit_night import inputs_of, outputs_of
from tasks.content import Contents
from tasks.night import HANDED_ON, NIGHT_FILE, STUDENTS
from tasks.teachers import Teachers

__all__ = ["ancestors", "content_links", "made_as"]

#: Links of the record in the order in which one walks back from what is served.
_BACK = (
    *("package", "checkpoint", "soft_targets", "teacher", "sequences", "vocabulary"),
    *("accepted", "quarantine", "verdict", "snapshot"),
)
_TEACHER = "teacher"
#: Outputs of an ancestor that a student rests on.
_RESTS_ON = ("data/snapshot", "data/soft_targets", "models/teacher")


def content_links(kept: Contents, predicate: Mapping[str, Any], teachers: Teachers) -> Iterator[Link]:
    """Read the content of every link of the record again, and of every other output of its stages."""
    links = predicate["links"]
    for name in _BACK[_BACK.index(_TEACHER) :] if _TEACHER in predicate else _BACK:
        if name not in links:
            yield missing(name, "the record does not name it")
            continue
        md5 = links[name]["md5"]
        state, says = kept.state(md5)
        if name == _TEACHER:
            says += _known(teachers, predicate["night"]["id"], md5)
        yield Link(name, state, f"{links[name]['path']}: {says}", md5, _verdict(kept, name, md5, predicate))
    named = {link["md5"] for link in links.values()}
    made = [one for stage in predicate["stages"] for one in stage["outputs"] if one["md5"] not in named]
    yield _several("other outputs", kept, {one["path"]: one["md5"] for one in made})


def _known(teachers: Teachers, night: str, md5: str) -> str:
    """Return what is said after a teacher's content: its version, nothing for one that was never registered."""
    version = teachers.version(night, md5)
    return "" if version is None else f"; teacher version {version}"


def _verdict(kept: Contents, name: str, md5: str, predicate: Mapping[str, Any]) -> tuple[Link, ...]:
    if name != "verdict" or (data := kept.read(md5)) is None:
        return ()
    if json.loads(data) != predicate["verdict"]:
        return (altered("its copy in the record", "differs from the file"),)
    return ()


def _several(name: str, kept: Contents, stated: Mapping[str, str]) -> Link:
    bad = []
    for path, md5 in sorted(stated.items()):
        state, says = kept.state(md5)
        if state != "verified":
            bad.append(Link(path, state, says, md5))
    if bad:
        return Link(name, bad[0].state, f"{len(bad)} of {len(stated)} are not as recorded", None, tuple(bad))
    return verified(name, f"{len(stated)} re-read")


def ancestors(root: Path, kept: Contents, predicate: Mapping[str, Any], teachers: Teachers) -> Link:
    """Return the link of the nights before: a night a link, back to the nearest that started its weights afresh."""
    found: list[Link] = []
    inherited = {path: one["md5"] for path, one in predicate["inherited"].items()}
    cold, step = predicate["night"]["cold"], predicate["ancestor"]
    name, commit = (step["night"], step["commit"]) if step else (None, None)
    while name is not None:
        link, inherited, name, was_cold = _ancestor(root, kept, name, commit, inherited, teachers)
        found.append(link)
        commit = None  # of the nights further back the tags alone tell
        if cold or was_cold or link.state != "verified":
            break
    if not found:
        return noted("ancestors", "a first night: there is none")
    text = f"{len(found)} night{'s' * (len(found) > 1)} back, to the nearest that started afresh"
    if predicate["night"]["cold"]:
        text = "the weights started afresh; vocabulary and profile are the night before's"
    return verified("ancestors", text, None, tuple(found))


def _ancestor(
    root: Path, kept: Contents, night: str, commit: str | None, inherited: Mapping[str, str], teachers: Teachers
) -> tuple[Link, dict[str, str], str | None, bool]:
    """Check the night that ``inherited`` came from; return its link, what it inherited itself, and from where."""
    name = f"night {night}"
    closed = versions.tag_commit(root, night, versions.CLOSED)
    if closed is None:
        return missing(name, "its closed tag is gone", commit), {}, None, True
    if commit is not None and not versions.contains(root, night, versions.CLOSED, commit):
        return altered(name, "its closed tag does not hold the commit that the record names", commit), {}, None, True
    held = versions.read_many(root, closed, [NIGHT_FILE, versions.LOCK])
    if held[NIGHT_FILE] is None or held[versions.LOCK] is None:
        return missing(name, "its commit lacks night.yaml or dvc.lock", closed), {}, None, True
    lock = held[versions.LOCK] or b""
    outputs = outputs_of(lock)
    sources = {path: source for path in inherited if (source := _handed_on(path))}
    wrong = [path for path, source in sources.items() if inherited[path] not in (outputs.get(source), _NONE)]
    if wrong:
        return altered(name, f"its outputs are not what was handed on: {', '.join(wrong)}", closed), {}, None, True
    below = tuple(_output(kept, path, outputs[path], night, teachers) for path in _RESTS_ON if path in outputs)
    document = yaml.safe_load(held[NIGHT_FILE] or b"")
    says = "started afresh" if document["cold"] else f"started from night {document['previous']}"
    own = inputs_of(lock, inherited)
    return verified(name, says, closed, below), own, document["previous"], bool(document["cold"])


def _output(kept: Contents, path: str, md5: str, night: str, teachers: Teachers) -> Link:
    state, says = kept.state(md5)
    return Link(path, state, says + (_known(teachers, night, md5) if path == HANDED_ON[_TEACHER] else ""), md5)


def _handed_on(path: str) -> str | None:
    """Return the output that a path of ``previous/`` was copied from; ``None`` for what the ledger hands on."""
    place = path.removeprefix("previous/")
    if place.startswith("students/"):
        return f"{STUDENTS}/{place.removeprefix('students/')}"
    return HANDED_ON.get(place)


def made_as(path: str, md5: str) -> str | None:
    """Return the path that a content of ``previous/`` was made as, its own where the ledger handed it on.

    ``None`` where nothing was handed on.
    """
    return None if md5 == _NONE else _handed_on(path) or path


def _dir_md5(files: Mapping[str, bytes]) -> str:
    """Return DVC's name of a folder with those files."""
    named = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in files.items()}
    text = json.dumps([{"md5": named[name], "relpath": name} for name in sorted(named)], sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


#: A folder of ``previous/`` in which nothing was handed on.
_NONE = _dir_md5({NONE: NONE_BYTES})
