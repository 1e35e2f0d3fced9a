"""``lineage.json``: an in-toto Statement about a package or a checkpoint, as bytes that can be signed later.

The subject is every file of it by SHA-256; the predicate is what
`stillhouse.lineage.record` gathers. The bytes are canonical (sorted keys, an
indent of one, a newline at the end), so that building the same statement again
gives the same file, and a signed envelope carries the file as it is.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.files import sha256_file
from stillhouse.errors import AlteredError, RegistryError, one_line

__all__ = [
    "PREDICATE_TYPE",
    "build",
    "canonical",
    "differences",
    "digest",
    "mismatches",
    "read",
    "subjects",
    "tree_digest",
]

#: Names what the predicate means. A URN, because the project owns no domain that could say it.
PREDICATE_TYPE = "urn:stillhouse:lineage:v1"

_TYPE = "https://in-toto.io/Statement/v1"
_LARGEST = 2**53  # the predicate is a protobuf Struct, whose numbers are doubles


def subjects(package: Path) -> dict[str, str]:
    """Return file name → SHA-256 for every file below ``package``, sorted by name."""
    files = sorted((path.relative_to(package).as_posix(), path) for path in package.rglob("*") if path.is_file())
    return {name: sha256_file(path) for name, path in files}


def tree_digest(files: Mapping[str, str]) -> str:
    """Return what `stillhouse.data.files.sha256_tree` gives for a folder of those files: name → SHA-256.

    >>> tree_digest({"model.json": "0" * 64})[:12]
    '53fcd01a09e3'
    """
    lines = (f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def build(files: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statement that ``predicate`` makes about ``files``.

    Args:
        files: file name → SHA-256, as `subjects` gives it.
        predicate: plain JSON data; integers below 2**53 in size, no NaN.

    Raises:
        RegistryError: there is no file, no predicate, or a value that JSON or in-toto cannot hold.
    """
    _check_numbers(predicate, "predicate")
    subject = [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]
    try:
        plain = json.loads(json.dumps(dict(predicate), allow_nan=False))
    except (ValueError, TypeError) as error:
        raise RegistryError(one_line(f"the record must be plain JSON data: {error}")) from None
    statement = {"_type": _TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": plain}
    _validate(statement, "lineage.json")
    return statement


def _validate(statement: Any, where: str) -> None:
    """Have in-toto's own package check the statement; its own JSON would write 1 as 1.0, so ours is kept."""
    from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Proto

    try:
        Statement.copy_from_pb(ParseDict(statement, Proto())).validate()
    except (ValueError, TypeError, AttributeError, ParseError) as error:
        raise AlteredError(one_line(f"{where} must be an in-toto Statement: {error}")) from None


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_numbers(inner, f"{where}[{index}]")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise RegistryError(f"a number of a statement must be below 2**53, got {value} ({where}): record it as text")


def canonical(statement: Mapping[str, Any]) -> bytes:
    """Return the statement's bytes: what ``lineage.json`` holds and what is signed."""
    return (json.dumps(statement, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def digest(data: bytes) -> str:
    """Return the SHA-256 of a statement's bytes: what the ledger and the registry name it by."""
    return hashlib.sha256(data).hexdigest()


def read(data: bytes, where: str = "lineage.json") -> dict[str, Any]:
    """Return the statement in ``data``.

    Args:
        data: the file's bytes.
        where: the file's name, for errors.

    Raises:
        AlteredError: it is no JSON, no in-toto Statement, one of another kind, or not canonical.
    """
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise AlteredError(one_line(f"{where} must be JSON: {error}")) from None
    _validate(plain, where)
    if plain["predicateType"] != PREDICATE_TYPE:
        raise AlteredError(f"{where} must be of type {PREDICATE_TYPE}, got {plain['predicateType']!r}")
    if canonical(plain) != data:
        raise AlteredError(f"{where} must be canonical JSON (sorted keys, indent 1): it was written by something else")
    return dict(plain)


def mismatches(statement: Mapping[str, Any], package: Path) -> list[str]:
    """Name every file in which ``package`` differs from what the statement is about; empty when none does."""
    return differences(statement, subjects(package))


def differences(statement: Mapping[str, Any], found: Mapping[str, str]) -> list[str]:
    """Name every file in which ``found`` (name → SHA-256) differs from what the statement is about."""
    stated = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    problems = [f"{name} is missing" for name in sorted(stated.keys() - found.keys())]
    problems += [f"{name} is not in the statement" for name in sorted(found.keys() - stated.keys())]
    problems += [
        f"{name} was altered: {found[name][:12]}, stated {stated[name][:12]}"
        for name in sorted(found.keys() & stated.keys())
        if found[name] != stated[name]
    ]
    return problems
