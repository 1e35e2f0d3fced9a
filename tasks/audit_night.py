"""Part of an audit: the night's own code, settings and lock, as its tags hold them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stillhouse.lineage.audit import Link, altered, missing, noted, verified
from stillhouse.lineage.record import BY_NATURE, maker, plain
from tasks import versions
from tasks.night import NIGHT_FILE

__all__ = ["inputs_of", "night_link", "outputs_of"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HELD = ("requirements.txt", "params.yaml", NIGHT_FILE)
#: The library that no requirement pins: the commit holds it.
_OWN = "stillhouse"


def night_link(root: Path, predicate: Mapping[str, Any]) -> Link:
    """Return the link of the night that ``predicate`` (of a record) belongs to."""
    night, commit = predicate["night"]["id"], predicate["night"]["commit"]
    if not versions.contains(root, night, versions.OPEN, commit):
        found = versions.tag_commit(root, night, versions.OPEN)
        says = f"the tag {predicate['night']['tag']} {'does not hold it' if found else 'is gone'}"
        return (altered if found else missing)(f"night {night}", says, commit)
    held = versions.read_many(root, commit, [*predicate["code"], *_HELD])
    below = (
        _code(held, predicate["code"]),
        _document("params", held["params.yaml"], predicate["params"]),
        _document("source and as_of", held[NIGHT_FILE], _without(predicate["night"], "tag", "commit")),
        _environment(held["requirements.txt"], predicate["environment"]),
        _locked(root, night, predicate),
    )
    return verified(f"night {night}", f"the tag {predicate['night']['tag']} holds the commit", commit, below)


def _code(held: Mapping[str, bytes | None], code: Mapping[str, str]) -> Link:
    gone = [path for path in code if held[path] is None]
    if gone:
        return missing("code", f"the commit lacks {', '.join(gone[:3])}")
    wrong = [
        path for path, md5 in code.items() if hashlib.md5(held[path] or b"", usedforsecurity=False).hexdigest() != md5
    ]
    if wrong:
        return altered("code", f"{', '.join(wrong[:3])} of the commit are not what the stages ran with")
    return verified("code", f"{len(code)} files of the commit are what the stages ran with")


def _document(name: str, data: bytes | None, stated: Any) -> Link:
    if data is None:
        return missing(name, "the commit lacks the file")
    found = plain(yaml.safe_load(data))
    if found != stated:
        keys = sorted(key for key in {*found, *stated} if found.get(key) != stated.get(key))
        return altered(name, f"the commit's file differs from the record in {', '.join(keys)}")
    fingerprint = stated.get("fingerprint") if isinstance(stated, Mapping) else None
    return verified(name, "the commit's file is what the record says", fingerprint)


def _environment(data: bytes | None, stated: Mapping[str, Any]) -> Link:
    if data is None:
        return missing("environment", "the commit lacks requirements.txt")
    lines = [line.split("==", 1) for line in data.decode().splitlines() if "==" in line and line[0].isalnum()]
    pins = {_normal(name): pin.split()[0] for name, pin in lines}
    libraries = stated["libraries"]
    ran = {_normal(name): found.partition("+")[0] for name, found in libraries.items()}  # a build's suffix apart
    other = [name for name, found in ran.items() if name != _OWN and pins.get(name) != found]
    about = f"Python {stated['python']} on {stated['platform']}, {len(libraries)} libraries"
    if other:
        return noted("environment", f"{about}; not as pinned: {', '.join(sorted(other))}")
    return verified("environment", f"{about}, as requirements.txt of the commit pins them")


def _normal(name: str) -> str:
    """Return a distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked(root: Path, night: str, predicate: Mapping[str, Any]) -> Link:
    """Hold the record's hashes against dvc.lock as the night closed."""
    commit = versions.tag_commit(root, night, versions.CLOSED)
    if commit is None:
        return missing("dvc.lock", f"night {night} has not closed")
    outputs = outputs_of(versions.read_many(root, commit, [versions.LOCK])[versions.LOCK] or b"stages: {}")
    stated = dict(_behind(predicate))
    wrong = sorted(path for path, md5 in stated.items() if outputs.get(path) != md5)
    if wrong:
        return altered("dvc.lock", f"the closed night's lock differs from the record in {', '.join(wrong[:3])}")
    return verified("dvc.lock", f"the closed night's lock names the same content of {len(stated)} outputs")


def _behind(predicate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give path and MD5 of the outputs of every stage that package or checkpoint rests on, but what differs by nature.

    What the night evaluated beside it may have been done again since, against another champion.
    """
    stages = {stage["name"]: stage for stage in predicate["stages"]}
    makers = {one["path"]: name for name, stage in stages.items() for one in stage["outputs"]}
    wanted, found = [maker(predicate)], set[str]()
    while wanted:
        name = wanted.pop()
        if name in stages and name not in found:
            found.add(name)
            wanted += [makers[one["path"]] for one in stages[name]["inputs"] if one["path"] in makers]
    for name in sorted(found):
        yield from ((one["path"], one["md5"]) for one in stages[name]["outputs"] if one["argument"] not in BY_NATURE)


def outputs_of(lock: bytes) -> dict[str, str]:
    """Return path → MD5 of every output that a ``dvc.lock`` names."""
    stages = yaml.load(lock, Loader=_LOADER)["stages"]  # noqa: S506  # a safe loader, in C where there is one
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def inputs_of(lock: bytes, paths: Container[str]) -> dict[str, str]:
    """Return path → MD5 of those inputs among ``paths`` that a ``dvc.lock`` names."""
    stages = yaml.load(lock, Loader=_LOADER)["stages"]  # noqa: S506  # as above
    found = {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage.get("deps", ())}
    return {path: md5 for path, md5 in found.items() if path in paths}


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
