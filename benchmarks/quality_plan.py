"""What ``quality.yaml`` says of a run: its settings, what it takes from other runs, whether what is there still fits.

A run's *digest* is made of the settings that its own stages read (threads and precision left out: a run may go on in
others) and of the checkpoints that it takes. It stands in ``result.json``; a result whose digest is another is *stale*.
A result without one was made before there were any, and is taken as it is.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stillhouse.data.files import read_json, write_json
from stillhouse.models import checkpoint
from stillhouse.params.base import read_yaml, stage_values
from stillhouse.params.document import STAGE_PARAMS

__all__ = [
    "Plan",
    "Run",
    "adopt",
    "digest",
    "folder_of",
    "merged",
    "phases",
    "selected",
    "settings",
    "sources",
    "state",
    "store_key",
    "there",
]

ROOT = Path(__file__).parents[1]
Plan = Mapping[str, Any]
Run = tuple[str, int]
"""A run's name and seed."""
#: Of ``compute``: what may differ from one attempt to the next.
_FREE = ("threads", "precision")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``; a dotted name reaches into sections."""
    result = copy.deepcopy(dict(base))
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        section = result
        for key in parents:
            section = section.setdefault(key, {})
        section[last] = value
    return result


def settings(plan: Plan, name: str) -> dict[str, Any]:
    """Return the whole of ``params.yaml`` as the run ``name`` has it."""
    return _changed(plan, name, merged(_shipped(), plan["common"]))


@cache
def _shipped() -> dict[str, Any]:
    return read_yaml(ROOT / "params.yaml")


def _changed(plan: Plan, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return ``params`` with what the runs change that ``name`` is like, and then what itself does."""
    run = plan["runs"][name]
    for parent in run.get("like", []):
        params = _changed(plan, parent, params)
    return merged(params, run.get("params", {}))


def selected(plan: Plan, pattern: str, seeds: int) -> list[Run]:
    """Return the runs whose names fit ``pattern``, each with the seeds 1, 2, ... ``seeds``."""
    return [(name, seed) for name in plan["runs"] if fnmatch.fnmatch(name, pattern) for seed in range(1, seeds + 1)]


def sources(plan: Plan, one: Run) -> list[Run]:
    """Return the runs that must be finished before ``one``: its members, its teacher, what it packages or continues."""
    name, seed = one
    run = plan["runs"][name]
    if run["role"] == "teacher":
        taken = [member.rpartition(".") for member in run.get("taken", {}).values()]
        return [(member, int(number)) for member, _, number in taken]
    if "student_of" in run:
        return [(run["student_of"], seed)]
    before = [(run["continues"], seed)] if "continues" in run else []
    return [(run.get("taught_by", run["teacher"]), 1), *before]


def phases(plan: Plan, wanted: list[Run]) -> Iterator[list[Run]]:
    """Give ``wanted`` in parts, in their order: what a run takes stands in an earlier part than the run."""
    left = list(wanted)
    while left:
        ready = [one for one in left if not set(sources(plan, one)) & set(left)]
        if not ready:
            raise ValueError(f"runs must not take each other, found {left} (quality.yaml)")
        yield ready
        left = [one for one in left if one not in ready]


def folder_of(work: Path, one: Run) -> Path:
    """Return the folder of the run ``one``."""
    return work / "runs" / f"{one[0]}.{one[1]}"


def state(plan: Plan, one: Run, work: Path) -> Literal["done", "stale", "missing"]:
    """Say whether ``one`` has a result, and whether that is of today's settings and sources."""
    result = folder_of(work, one) / "result.json"
    if not result.exists():
        return "missing"
    found = read_json(result).get("digest")
    now = digest(plan, one, work)
    return "done" if found is None or now is None or found == now else "stale"


def there(plan: Plan, work: Path) -> list[Run]:
    """Return the runs of ``plan`` that have a result."""
    found = [result.parent.name.rpartition(".") for result in sorted((work / "runs").glob("*.[0-9]*/result.json"))]
    return [(name, int(seed)) for name, _, seed in found if name in plan["runs"]]


def adopt(plan: Plan, work: Path) -> None:
    """Write the digest into results that have none."""
    for one in there(plan, work):
        result = folder_of(work, one) / "result.json"
        figures = read_json(result)
        if figures.get("digest") is None:
            write_json(result, {**figures, "digest": digest(plan, one, work)})


def digest(plan: Plan, one: Run, work: Path) -> str | None:
    """Return what ``one`` is made of; ``None``: something that it takes is not there."""
    name, seed = one
    run = plan["runs"][name]
    params = merged(settings(plan, name), {"seed": seed})
    parts: dict[str, Any] = {stage: _values(stage, params) for stage in _stages(run, params)}
    for source in sources(plan, one):
        student = source[0] in (run.get("student_of"), run.get("continues"))
        if not student and not _listens(run, params):
            continue
        made = folder_of(work, source) / ("student" if student else "teacher")
        if not made.exists():
            return None
        parts[".".join(map(str, source))] = checkpoint.digest(made)
    return _short(parts)


def store_key(params: Mapping[str, Any], teacher: Path) -> str:
    """Return the name of the soft targets that ``params`` ask of the checkpoint ``teacher``, whatever the seed is."""
    return (
        f"soft_targets-{_short({'export': _values('export_soft_targets', params), 'of': checkpoint.digest(teacher)})}"
    )


def _stages(run: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stages that decide what the run is."""
    if run["role"] == "teacher":
        return ("train_teacher", "check_teacher")
    if "student_of" in run:
        return ("package", "evaluate")
    exported = ("export_soft_targets",) if _listens(run, params) else ()
    return (*exported, "train_student", "package", "evaluate")


def _listens(run: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    """Say whether anything of a teacher goes into the run: a student alone opens a store and reads nothing of it."""
    if run["role"] == "teacher" or "student_of" in run:
        return True
    distillation = params["train_student"]["distillation"]
    return distillation["alpha"] != 1.0 or distillation["start"] != "fresh"


def _values(stage: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``stage`` reads of ``params``, without what may differ."""
    model = STAGE_PARAMS[stage]
    values = dict(stage_values(model, params, {}, "student" if model.instances else None))
    if "compute" in values:
        values["compute"] = {key: value for key, value in values["compute"].items() if key not in _FREE}
    if stage == "export_soft_targets":
        values.pop("seed")  # one store for all seeds
    return values


def _short(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
