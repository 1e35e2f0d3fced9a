"""A record as OpenLineage run events: what a catalogue of lineage takes.

Each stage of the record is one run of a job of its name, with what it read and
made as datasets, their versions being the hashes of their content. The same
record gives the same events, and what two students of a night have in common is
the same run, so that events may be sent again.

Source: https://github.com/OpenLineage/OpenLineage/blob/main/spec/OpenLineage.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from stillhouse.lineage.graph import Plain

__all__ = ["run_events"]

#: Who made the events. A URN, because the project owns no domain.
_PRODUCER = "urn:stillhouse:openlineage:v1"

_SPEC = "https://openlineage.io/spec"
_CORE = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs"

#: The job that every stage's run belongs to.
_NIGHT = "night"
#: The dataset that the first stage reads; its version is the source's fingerprint.
_SOURCE = "source"


def run_events(
    predicate: Mapping[str, Any], namespace: str, made_as: Callable[[str, str], str | None]
) -> list[dict[str, Any]]:
    """Return a ``START`` and a ``COMPLETE`` of each stage of a record, in the order of the stages.

    Their time is the night's ``as_of``: a record, which is the same bytes whenever it is made, knows no other.

    Args:
        predicate: of a student's or a teacher's record.
        namespace: of the jobs and datasets; one for each workspace whose events go to the same place.
        made_as: from path and MD5 of what came from the night before to the path that it was made as, ``None`` where
            nothing came.
    """
    night = predicate["night"]
    snapshot = predicate["links"]["snapshot"]["path"]
    found = []
    for stage in predicate["stages"]:
        read = _read(stage, predicate["inherited"], made_as)
        inputs = [_dataset(namespace, path, md5) for path, md5 in read.items()]
        outputs = [_dataset(namespace, one["path"], one["md5"]) for one in stage["outputs"]]
        if any(one["path"] == snapshot for one in stage["outputs"]):
            inputs.insert(0, _dataset(namespace, _SOURCE, night["fingerprint"]))
        event: dict[str, Any] = {
            "eventTime": night["as_of"],
            "run": {"runId": _run(night, stage["name"]), "facets": _run_facets(night, namespace, stage["run"])},
            "job": {"namespace": namespace, "name": stage["name"]},
            "producer": _PRODUCER,
            "schemaURL": f"{_CORE}/RunEvent",
        }
        found += [
            event | {"eventType": "START"},
            event | {"eventType": "COMPLETE", "inputs": inputs, "outputs": outputs},
        ]
    return found


def _read(
    stage: Mapping[str, Any], inherited: Mapping[str, Any], made_as: Callable[[str, str], str | None]
) -> dict[str, str]:
    """Return path → MD5 of what a stage read; where tonight's is read too, last night's keeps a path of its own."""
    read = {one["path"]: one["md5"] for one in stage["inputs"]}
    found = {}
    for path, md5 in read.items():
        name = made_as(path, md5) if path in inherited else path
        if name is not None:
            found[path if name in read else name] = md5
    return found


def _run(night: Mapping[str, Any], name: str) -> str:
    """Return the id of a run: of the night's commit, so that nights of two workspaces are not taken for one."""
    return str(uuid5(NAMESPACE_URL, f"{_PRODUCER}:{night['commit']}:{night['id']}:{name}"))


def _run_facets(night: Mapping[str, Any], namespace: str, tracked: str | None) -> Plain:
    parent = {"run": {"runId": _run(night, _NIGHT)}, "job": {"namespace": namespace, "name": _NIGHT}}
    known = {"night": night["id"], "tag": night["tag"], "commit": night["commit"]}
    return {
        "nominalTime": _facet("NominalTimeRunFacet", "1-0-1", nominalStartTime=night["as_of"]),
        "parent": _facet("ParentRunFacet", "1-2-0", **parent),
        # What the specification has no facet for stands in one of ours, which promises no more than to be one.
        "stillhouse_night": {
            "_producer": _PRODUCER,
            "_schemaURL": f"{_CORE}/RunFacet",
            **known,
            **({"trackingRun": tracked} if tracked else {}),
        },
    }


def _dataset(namespace: str, path: str, version: str) -> Plain:
    facet = _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=version)
    return {"namespace": namespace, "name": path, "facets": {"version": facet}}


def _facet(name: str, version: str, **values: Any) -> Plain:
    return {"_producer": _PRODUCER, "_schemaURL": f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}", **values}
