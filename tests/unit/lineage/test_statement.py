import json

import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage.statement import (
    PREDICATE_TYPE,
    build,
    canonical,
    digest,
    mismatches,
    read,
    subjects,
    tree_digest,
)

PREDICATE = {"seed": 20260101, "alpha": 0.1, "temperature": 2.0, "none": None, "list": [1, {"ü": True}], "empty": {}}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"abc")
    (folder / "inner" / "items.parquet").write_bytes(b"")
    return folder


def test_the_subject_is_every_file_by_its_hash(package):
    assert subjects(package) == {
        "inner/items.parquet": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "model.onnx": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_the_digest_of_a_folder_follows_from_its_files(package):
    assert tree_digest(subjects(package)) == sha256_tree(package)


def test_a_statement_is_valid_for_in_toto_itself(package):
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Proto

    data = canonical(build(subjects(package), PREDICATE))
    statement = Statement.copy_from_pb(Parse(data, Proto()))
    statement.validate()
    assert statement.pb.type == "https://in-toto.io/Statement/v1"
    assert statement.pb.predicate_type == PREDICATE_TYPE
    assert {one.name: dict(one.digest)["sha256"] for one in statement.pb.subject} == subjects(package)
    assert statement.pb.predicate["seed"] == 20260101


def test_the_bytes_are_the_same_however_the_statement_was_put_together(package):
    files = subjects(package)
    first = canonical(build(files, PREDICATE))
    second = canonical(build(dict(reversed(files.items())), dict(reversed(PREDICATE.items()))))
    assert first == second == canonical(read(first))
    assert first.decode("ascii").endswith("}\n")
    assert '"seed": 20260101,' in first.decode()


def test_reading_gives_what_was_built(package):
    statement = build(subjects(package), PREDICATE)
    assert read(canonical(statement)) == statement
    assert statement["predicate"] == PREDICATE
    assert len(digest(canonical(statement))) == 64


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        ({}, "Predicate object required"),
        ({"a": float("nan")}, "must be plain JSON data"),
        ({"a": object()}, "must be plain JSON data"),
        ({"a": [{"b": 2**60}]}, r"must be below 2\*\*53, got 1152921504606846976 \(predicate.a\[0\].b\)"),
    ],
)
def test_a_predicate_that_cannot_be_held_is_refused(predicate, said):
    with pytest.raises(RegistryError, match=said):
        build({"a": "0" * 64}, predicate)


def test_a_statement_about_nothing_is_refused():
    with pytest.raises(RegistryError, match="At least one subject required"):
        build({}, PREDICATE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"\xff", "must be JSON"),
        (lambda data: b"[]", "must be an in-toto Statement"),
        (lambda data: data.replace(b"Statement/v1", b"Statement/v0"), "Wrong statement type"),
        (lambda data: data.replace(b'"subject"', b'"subjects"'), 'no field named "subjects"'),
        (lambda data: data.replace(PREDICATE_TYPE.encode(), b"urn:x"), "must be of type urn:stillhouse"),
        (lambda data: json.dumps(json.loads(data)).encode(), "must be canonical JSON"),
    ],
)
def test_a_file_that_is_no_statement_of_ours_is_refused(package, change, said):
    data = canonical(build(subjects(package), PREDICATE))
    with pytest.raises(RegistryError, match=said):
        read(change(data))


def test_every_file_that_differs_from_the_statement_is_named(package):
    statement = build(subjects(package), PREDICATE)
    assert mismatches(statement, package) == []
    (package / "model.onnx").write_bytes(b"abd")
    (package / "extra").write_bytes(b"")
    (package / "inner" / "items.parquet").unlink()
    missing, extra, altered = mismatches(statement, package)
    assert missing == "inner/items.parquet is missing"
    assert extra == "extra is not in the statement"
    assert altered.startswith("model.onnx was altered: ")
    assert altered.endswith(", stated ba7816bf8f01")
