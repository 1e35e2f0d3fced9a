"""OpenLineage's events of a record, held against what the specification asks of one (its version 2-0-2)."""

import uuid
from datetime import datetime

import jsonschema
import pytest

from stillhouse.lineage.openlineage import run_events

TEXT = {"type": "string", "minLength": 1}
FACETS = {
    "type": "object",
    "additionalProperties": {"required": ["_producer", "_schemaURL"], "properties": {"_producer": TEXT}},
}
NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"namespace": TEXT, "name": TEXT, "facets": FACETS},
}
EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": TEXT,
        "producer": TEXT,
        "schemaURL": TEXT,
        "run": {"type": "object", "required": ["runId"], "properties": {"runId": TEXT, "facets": FACETS}},
        "job": NAMED,
        "inputs": {"type": "array", "items": NAMED},
        "outputs": {"type": "array", "items": NAMED},
    },
    "additionalProperties": False,
}


def entry(path, md5):
    return {"path": path, "argument": path.rpartition("/")[2], "md5": md5, "size": 9}


@pytest.fixture
def record():
    stages = [
        {"name": "ingest", "inputs": [], "outputs": [entry("data/snapshot", "s.dir")], "run": "r1"},
        {
            "name": "train_teacher",
            "inputs": [entry("data/snapshot", "s.dir"), entry("previous/teacher", "t0.dir"), entry("previous/x", "-")],
            "outputs": [entry("models/teacher", "t1.dir")],
            "run": None,
        },
        {
            "name": "check_teacher",
            "inputs": [entry("models/teacher", "t1.dir"), entry("previous/teacher", "t0.dir")],
            "outputs": [],
            "run": "r3",
        },
    ]
    return {
        "night": {
            "id": "2026-03-03",
            "as_of": "2026-03-03T00:00:00+00:00",
            "fingerprint": "f",
            "tag": "night/2026-03-03/open",
            "commit": "c" * 40,
        },
        "links": {"snapshot": {"path": "data/snapshot", "md5": "s.dir"}},
        "inherited": {path: {"path": path, "md5": "?"} for path in ("previous/teacher", "previous/x")},
        "stages": stages,
    }


def made_as(path, md5):
    return None if md5 == "-" else path.replace("previous", "models")


def named(datasets):
    return {one["name"]: one["facets"]["version"]["datasetVersion"] for one in datasets}


def test_every_event_is_one_by_the_specification(record):
    for event in run_events(record, "here", made_as):
        jsonschema.validate(event, EVENT)
        uuid.UUID(event["run"]["runId"])
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
        assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
        assert event["producer"].startswith("urn:stillhouse:")


def test_a_stage_starts_and_is_complete_with_what_it_read_and_made_by_content(record):
    events = run_events(record, "here", made_as)
    names = ("ingest", "train_teacher", "check_teacher")
    order = [(kind, name) for name in names for kind in ("START", "COMPLETE")]
    assert [(event["eventType"], event["job"]["name"]) for event in events] == order
    assert [event["run"]["runId"] for event in events[::2]] == [event["run"]["runId"] for event in events[1::2]]
    ingest, train, check = events[1::2]
    assert named(check["inputs"]) == {"models/teacher": "t1.dir", "previous/teacher": "t0.dir"}, "one set, two teachers"
    assert (named(ingest["inputs"]), named(ingest["outputs"])) == ({"source": "f"}, {"data/snapshot": "s.dir"})
    assert named(train["inputs"]) == {"data/snapshot": "s.dir", "models/teacher": "t0.dir"}, (
        "nothing was handed on as x"
    )
    assert named(train["outputs"]) == {"models/teacher": "t1.dir"}
    assert {one["namespace"] for one in (*train["inputs"], *train["outputs"], train["job"])} == {"here"}


def test_a_run_names_its_night_and_where_it_was_tracked(record):
    ingest, train, _ = run_events(record, "here", made_as)[1::2]
    own = ingest["run"]["facets"]["stillhouse_night"]
    assert (own["night"], own["tag"], own["commit"]) == ("2026-03-03", "night/2026-03-03/open", "c" * 40)
    assert own["trackingRun"] == "r1"
    assert "trackingRun" not in train["run"]["facets"]["stillhouse_night"]
    parents = [event["run"]["facets"]["parent"]["run"]["runId"] for event in (ingest, train)]
    assert len({*parents, ingest["run"]["runId"], train["run"]["runId"]}) == 3, "one night, and each stage its own"


def test_the_same_record_gives_the_same_events_and_another_night_other_runs(record):
    first = run_events(record, "here", made_as)
    assert run_events(record, "here", made_as) == first
    record["night"]["commit"] = "d" * 40
    other = run_events(record, "here", made_as)
    assert {event["run"]["runId"] for event in first}.isdisjoint(event["run"]["runId"] for event in other)
