"""The predicate of ``lineage.json``: everything that a student or a teacher came from, gathered from plain data."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from stillhouse.errors import RegistryError
from stillhouse.lineage.graph import find_output, stages_behind

__all__ = ["BY_NATURE", "environment", "gaps", "gather", "gather_teacher", "maker", "plain"]

#: Version of the predicate's layout.
_FORMAT = 1

#: Libraries whose version can change a number or a file.
_LIBRARIES = (
    "dvc", "great_expectations", "lightning-fabric", "mlflow", "numpy", "onnx", "onnxruntime", "onnxscript", "pandas",
    "prefect", "pyarrow", "pydantic", "safetensors", "sqlalchemy", "stillhouse", "torch",
)  # fmt: skip

#: Arguments of outputs that differ from run to run and on which nothing depends: ids, timings, Data Docs.
BY_NATURE = ("run", "timings", "data_docs")

#: What an auditor asks for first: name → the stage that made it and the argument it made it as.
_LINKS = {
    "snapshot": ("ingest", "snapshot"),
    "accepted": ("validate", "accepted"),
    "quarantine": ("validate", "quarantine"),
    "verdict": ("validate", "verdict"),
    "vocabulary": ("prepare", "vocabulary"),
    "sequences": ("prepare", "sequences"),
    "teacher": ("train_teacher", "teacher"),
    "soft_targets": ("export_soft_targets", "soft_targets"),
    "checkpoint": ("train_student@{}", "student"),
    "package": ("package@{}", "package"),
}
#: Those of them that a teacher came from.
_OF_TEACHER = ("snapshot", "accepted", "quarantine", "verdict", "vocabulary", "sequences", "teacher")
#: The stage after which a teacher may teach.
_CHECKED = "check_teacher"


def gather(
    *,
    night: Mapping[str, Any],
    tag: str,
    commit: str,
    lock: Mapping[str, Any],
    student: str,
    params: Mapping[str, Any],
    verdict: Mapping[str, Any],
    package: Mapping[str, Any],
    package_digest: str,
    gate: Mapping[str, Any],
    metrics: Mapping[str, Any],
    runs: Mapping[str, str],
    ancestor: Mapping[str, Any] | None = None,
    files: Mapping[str, Mapping[str, str]] | None = None,
    also: Sequence[str] = ("evaluate_champion",),
) -> dict[str, Any]:
    """Return the predicate for one student; a function of its arguments and the environment alone.

    Args:
        night: ``night.yaml``.
        tag: the git tag that holds the night's code, such as ``night/2026-03-12/open``.
        commit: the commit that the tag names.
        lock: ``dvc.lock``.
        student: the student's name in ``params.yaml``.
        params: the whole of ``params.yaml``.
        verdict: the verdict on the data, ``reports/verdict.json``.
        package: the package's ``package.json``.
        package_digest: `stillhouse.data.files.sha256_tree` of the package.
        gate: the gate's decision on this student, with each rule's value and limit.
        metrics: what ``evaluate@NAME`` returned.
        runs: stage → tracking run that made its outputs.
        ancestor: the closed night that ``previous/`` was filled from: ``night``, ``tag``, ``commit``
            and what else names it; ``None`` for a first night.
        files: directory → file in it → MD5, for directories whose files an auditor looks for
            one by one (the snapshot); DVC keeps the same list in its cache.
        also: stages to record although the package does not rest on them; those not in the lock are left out.

    Raises:
        RegistryError: the lock lacks one of the student's stages.
    """
    held = lock.get("stages", {})
    targets = [
        f"package@{student}",
        *(name for name in (f"evaluate@{student}", _CHECKED, *also) if name in held),
    ]
    return _predicate(
        {
            "student": {"name": student, "package_digest": package_digest, "package": package, "metrics": metrics},
            "gate": gate,
        },
        lock,
        targets,
        {name: (stage.format(student), argument) for name, (stage, argument) in _LINKS.items()},
        {**night, "tag": tag, "commit": commit},
        params=params,
        verdict=verdict,
        runs=runs,
        ancestor=ancestor,
        files=files or {},
    )


def gather_teacher(
    *,
    night: Mapping[str, Any],
    tag: str,
    commit: str,
    lock: Mapping[str, Any],
    teacher: Mapping[str, Any],
    params: Mapping[str, Any],
    verdict: Mapping[str, Any],
    runs: Mapping[str, str],
    ancestor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the predicate for the night's teacher; a function of its arguments and the environment alone.

    Args:
        night: ``night.yaml``.
        tag: the git tag that holds the night's code.
        commit: the commit that the tag names.
        lock: ``dvc.lock``.
        teacher: what it is: ``checkpoint_digest``, its ``header``, its ``metrics`` (of ``check_teacher``), its
            ``start`` (warm, cold or fitted), and the registered teacher that it started ``from``.
        params: the whole of ``params.yaml``.
        verdict: the verdict on the data, ``reports/verdict.json``.
        runs: stage → tracking run that made its outputs; of stages that it does not rest on, none is kept.
        ancestor: as in `gather`.

    Raises:
        RegistryError: the lock lacks one of the teacher's stages.
    """
    predicate = _predicate(
        {"teacher": teacher},
        lock,
        [_CHECKED],
        {name: _LINKS[name] for name in _OF_TEACHER},
        {**night, "tag": tag, "commit": commit},
        params=params,
        verdict=verdict,
        runs=runs,
        ancestor=ancestor,
        files={},
    )
    behind = {stage["name"] for stage in predicate["stages"]}
    return predicate | {"runs": {name: run for name, run in predicate["runs"].items() if name in behind}}


def maker(predicate: Mapping[str, Any]) -> str:
    """Return the stage that made what a record is about."""
    return f"package@{predicate['student']['name']}" if "student" in predicate else "train_teacher"


def _predicate(
    about: Mapping[str, Any],
    lock: Mapping[str, Any],
    targets: Sequence[str],
    wanted: Mapping[str, tuple[str, str]],
    night: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    verdict: Mapping[str, Any],
    runs: Mapping[str, str],
    ancestor: Mapping[str, Any] | None,
    files: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    stages, code = stages_behind(lock, targets, runs)
    links = {name: find_output(stages, stage, argument) for name, (stage, argument) in wanted.items()}
    predicate: dict[str, Any] = {
        **about,
        "format": _FORMAT,
        "night": night,
        "links": {name: _named(link) for name, link in links.items() if link is not None},
        "stages": stages,
        "code": code,
        "ancestor": ancestor,
        "inherited": _inherited(stages),
        "files": files,
        "params": params,
        "seeds": _seeds(stages, params),
        "verdict": verdict,
        "runs": runs,
        "environment": environment(),
    }
    return {key: plain(value) for key, value in predicate.items()}


def gaps(lock: Mapping[str, Any], student: str, runs: Mapping[str, str]) -> list[str]:
    """Return what a record of ``student`` could not name: links without content, stages without a tracking run.

    Args:
        lock: ``dvc.lock``.
        student: the student's name in ``params.yaml``.
        runs: stage → tracking run that made its outputs.
    """
    try:
        stages, _ = stages_behind(lock, [f"package@{student}"], runs)
    except RegistryError as error:
        return [str(error)]
    missing = [
        name for name, (stage, output) in _LINKS.items() if find_output(stages, stage.format(student), output) is None
    ]
    return missing + [f"the tracking run of {stage['name']}" for stage in stages if stage["name"] not in runs]


def _named(link: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": link["path"], "md5": link["md5"]}


def _inherited(stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the inputs that no stage of this night made: what came from the night before, by path."""
    made = {output["path"] for stage in stages for output in stage["outputs"]}
    inputs = {one["path"]: _named(one) for stage in stages for one in stage["inputs"] if one["path"] not in made}
    return dict(sorted(inputs.items()))


def _seeds(stages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seed of each stage that has one, as the lock recorded it, and the gate's."""
    seeds = {
        stage["name"]: values["seed"]
        for stage in stages
        for values in stage["params"].values()
        if isinstance(values, Mapping) and "seed" in values
    }
    gate = params.get("gate")
    return seeds | ({"gate": gate["seed"]} if isinstance(gate, Mapping) and "seed" in gate else {})


def environment() -> dict[str, Any]:
    """Return interpreter, platform and the versions of the libraries that can change a number."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "libraries": found,
    }


def plain(value: Any) -> Any:
    """Return ``value`` as JSON has it: dates as ISO text, tuples as lists, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, date):
        return value.isoformat()
    return value
