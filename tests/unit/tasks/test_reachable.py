"""Which nights something names, and what DVC's pointers name: on plain data."""

import pytest

from stillhouse.errors import NightError
from stillhouse.lineage.entry import Entry
from stillhouse.tracking.registry import VersionInfo
from tasks.pointers import outputs_named
from tasks.reachable import line_of, named_nights


def version(number, night, model="student"):
    texts = dict.fromkeys(("name", "package", "statement", "verdict", "reason", "run_id", "model_id", "location"), "")
    return VersionInfo(version=number, night=night, created=0, model=model, **texts)


def entry(kind, number, night, model="student"):
    return Entry(
        kind=kind,
        model=model,
        key=f"{kind}:{number}",
        night=night,
        version=number,
        name="small",
        package="0",
        reason="",
        actor="gate",
        time="2026-03-02T00:00:00+00:00",
    )


def test_a_night_is_named_by_a_version_and_by_an_entry_of_whatever_model():
    entries = [entry("refused", 2, "b"), entry("rejected", 2, None), entry("registered", 1, "c", "teacher")]
    assert set(named_nights([version(1, "a")], entries)) == {"a", "b", "c"}


def test_an_entry_of_a_deleted_version_may_be_let_go_unless_it_was_or_may_be_served():
    entries = [entry(kind, number, night) for number, (kind, night) in enumerate(_ENTRIES, 1)]
    entries.append(entry("promoted", 2, None))  # by a person, of a version that the gate had refused
    assert set(named_nights([], entries)) == {"refused", "overridden", "noted", "waiting", "champion"}
    assert set(named_nights([], entries, let_deleted_go=True)) == {"overridden", "waiting", "champion"}
    assert "noted" in named_nights([version(3, "noted")], entries, let_deleted_go=True)
    # A teacher of the same number is another version.
    assert "refused" not in named_nights([version(1, "x", "teacher")], entries, let_deleted_go=True)


_ENTRIES = [
    ("refused", "refused"),
    ("refused", "overridden"),
    ("registered", "noted"),
    ("awaiting", "waiting"),
    ("promoted", "champion"),
]


@pytest.mark.parametrize(
    ("night", "found"),
    [
        ("5", ["4", "3"]),  # warm, back to the nearest cold one
        ("3", ["2"]),  # cold: the vocabulary and the profile are the night before's
        ("1", []),
        ("5.2", ["5", "4", "3"]),  # and the night that it performed again
        ("elsewhere", []),
    ],
)
def test_a_night_came_from_those_that_an_audit_walks_back_over(night, found):
    documents = {
        "1": {"cold": True, "previous": None, "revises": None},
        "2": {"cold": False, "previous": "1", "revises": None},
        "3": {"cold": True, "previous": "2", "revises": None},
        "4": {"cold": False, "previous": "3", "revises": None},
        "5": {"cold": False, "previous": "4", "revises": None},
        "5.2": {"cold": False, "previous": "4", "revises": "5"},
    }
    assert list(line_of(night, documents)) == found


def test_pointers_name_their_outputs_and_not_what_they_take():
    lock = b"""
schema: '2.0'
stages:
  a:
    cmd: x
    deps: [{path: src/a.py, md5: aa}]
    outs: [{path: data/a, md5: bb.dir, nfiles: 2}, {path: a.json, md5: cc}]
  b: {cmd: y}
"""
    assert outputs_named(lock, "dvc.lock") == {"bb.dir": "data/a", "cc": "a.json"}
    assert outputs_named(b"outs:\n- {md5: dd.dir, path: previous}\n", "previous.dvc") == {"dd.dir": "previous"}
    versioned = b"outs:\n- {path: d, files: [{relpath: one, md5: ee}]}\n"
    assert outputs_named(versioned, "d.dvc") == {"ee": "d/one"}
    assert outputs_named(b"", "empty.dvc") == {}


@pytest.mark.parametrize("data", [b"- 1", b"stages: {a: 3}", b"a: [", b"outs: [3]"])
def test_a_pointer_that_is_none_is_refused_in_one_line(data):
    with pytest.raises(NightError, match=r"x\.dvc must be a file of DVC's") as refused:
        outputs_named(data, "x.dvc")
    assert "\n" not in str(refused.value)
