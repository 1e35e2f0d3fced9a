"""From the served bytes, or a teacher's checkpoint, back to the rows: every link of a record, checked again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stillhouse.data.files import sha256_file, sha256_tree
from stillhouse.errors import AlteredError, NightError, RegistryError
from stillhouse.lineage import signing, statement
from stillhouse.lineage.audit import Link, altered, missing, noted, verified
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import about
from stillhouse.lineage.openlineage import run_events
from stillhouse.tracking import registry as versions_store
from stillhouse.tracking.registry import STUDENT, VersionInfo
from stillhouse.tracking.runs import read_file
from tasks.anchors import require_anchored
from tasks.audit_content import ancestors, content_links, made_as
from tasks.audit_night import night_link
from tasks.champion import ledger_entries
from tasks.content import Contents, contents
from tasks.gate import decision_digest, decision_file
from tasks.signing import trusted_keys
from tasks.teachers import Teachers

__all__ = ["audit", "audited_events"]


def audit(root: Path, version: int, served: Path | None = None, *, model: str = STUDENT) -> Link:
    """Check everything that ``version`` came from.

    Args:
        root: the workspace.
        version: a registered version.
        served: a package on disk, or one of its files, that is to be checked in place of the registry's files.
        model: the registered model: ``student``, or ``teacher``, whose content is the checkpoint in DVC.

    Returns:
        A tree of links; it is whole where none is missing or altered.

    Raises:
        RegistryError: there is no such version.
        NightError: DVC cannot work in ``root``.
    """
    info = versions_store.version_of(root, version, model)
    entries, ledger = _ledger(root, info)
    record, data = _record(root, info, entries)
    below = [record, ledger]
    with contents(root) as kept:
        if model == STUDENT:
            below.insert(0, _package(root, info, entries, data, served))
        else:
            below.insert(0, _checkpoint(kept, info, entries, data))
        if data is not None:
            predicate = json.loads(data)["predicate"]
            teachers = Teachers.of(root)
            below += [
                *([_gate(root, info, entries)] if model == STUDENT else []),
                night_link(root, predicate),
                *content_links(kept, predicate, teachers),
                ancestors(root, kept, predicate, teachers),
            ]
    name = f"{model} version {version}: {info.name} of night {info.night}"
    found = [link for top in below for link in top.walk()]
    wrong = sum(link.state in ("missing", "altered") for link in found)
    said = ", ".join(link.name for link in found if link.state == "noted")
    text = f"{wrong} link{'s' * (wrong > 1)} missing or altered" if wrong else "every link is verified"
    text += f"; noted: {said}" if said else ""
    return Link(name, "altered" if wrong else "verified", text, info.package, tuple(below))


def audited_events(root: Path, version: int, namespace: str, *, model: str = STUDENT) -> list[dict[str, Any]]:
    """Return the OpenLineage events of the record of ``version``, which an audit has found whole.

    Raises:
        RegistryError: there is no such version, or its record is not what was registered.
    """
    record = json.loads(versions_store.read_statement(root, version, model))
    return run_events(record["predicate"], namespace, made_as)


def _ledger(root: Path, info: VersionInfo) -> tuple[list[Entry], Link]:
    try:
        counted = ledger_entries(root)
        anchored = require_anchored(root, counted)
    except RegistryError as error:
        return [], altered("ledger", str(error))
    except NightError as error:  # who vouches for the ledger cannot be asked
        return [], missing("ledger", str(error))
    own = about(counted, info.version, model=info.model)
    if not own:
        return [], missing("ledger", f"no entry is about {info.label}")
    below = tuple(
        verified(f"entry {one.number}", f"{kind} by {one.entry.actor}, {one.entry.time}", one.hash)
        for one in own
        for kind in [one.entry.kind.replace("_", " ")]
    )
    text = f"{len(counted)} entries form one chain, and every closed night's tag names one of them"
    text += f"; DVC's remote vouches for {anchored}" if anchored else ""
    return [one.entry for one in own], verified("ledger", text, counted[-1].hash, below)


def _record(root: Path, info: VersionInfo, entries: Sequence[Entry]) -> tuple[Link, bytes | None]:
    name = versions_store.STATEMENT
    try:
        data = versions_store.statement_of(root, info)
        statement.read(data, f"{name} of {info.label}")
    except AlteredError as error:
        return altered(name, str(error), info.statement), None
    except RegistryError as error:
        return missing(name, str(error), info.statement), None
    other = [entry for entry in entries if entry.statement != statement.digest(data)]
    if other:
        return altered(name, f"the ledger names {str(other[0].statement)[:12]} ({other[0].key})", info.statement), None
    envelope = versions_store.read_envelope(root, info.version, info.model)
    signature = _signature(signing.verify(envelope, data, trusted_keys()))
    return verified(name, "as the registry and the ledger name it", info.statement, (signature,)), data


def _signature(found: signing.Signature) -> Link:
    name, key = "signature", str(found.key)[:12]
    if found.state == "verified":
        return verified(name, f"by the trusted key {key}", found.key)
    if found.state == "forged":
        return altered(name, "it is not one on this record", found.key)
    if found.state == "unsigned":
        return noted(name, "the record is not signed")
    return noted(name, f"by {key}, which is not among the trusted keys (STILLHOUSE_VERIFY_KEYS)", found.key)


def _package(root: Path, info: VersionInfo, entries: Sequence[Entry], data: bytes | None, served: Path | None) -> Link:
    name = "served bytes"
    if served is not None and served.is_file():
        digest = sha256_file(served)
        subjects = json.loads(data)["subject"] if data is not None else []
        if digest not in {one["digest"]["sha256"] for one in subjects}:
            return altered(name, f"{served.name} hashes to {digest[:12]}, which the record does not name", digest)
        return verified(name, f"{served.name} hashes to what the record names", digest)
    with TemporaryDirectory(prefix="stillhouse-audit-") as folder:
        try:
            package = served or versions_store.download(root, info.version, Path(folder) / "package")
        except AlteredError as error:
            return altered(name, str(error), info.package)
        except RegistryError as error:
            return missing(name, str(error), info.package)
        digest = sha256_tree(package)
        if any(entry.package != digest for entry in entries):
            stated = next(entry.package for entry in entries if entry.package != digest)
            return altered(name, f"they hash to {digest[:12]}, the ledger names {stated[:12]}", stated)
        if data is not None and (wrong := statement.mismatches(json.loads(data), package)):
            return altered(name, "; ".join(wrong), info.package)
    return _held_against(name, digest, data, entries)


def _held_against(name: str, digest: str, data: bytes | None, entries: Sequence[Entry]) -> Link:
    """Return the link of content that was found to be what is said of it, by whoever could be asked."""
    asked = [what for what, there in (("the record", data is not None), ("the ledger", bool(entries))) if there]
    if not asked:
        return noted(
            name, "they hash to what the registry's tag names; neither record nor ledger could be asked", digest
        )
    return verified(name, f"every file hashes to what {' and '.join(asked)} name", digest)


def _checkpoint(kept: Contents, info: VersionInfo, entries: Sequence[Entry], data: bytes | None) -> Link:
    """Hold the checkpoint that DVC keeps against the SHA-256 that record, ledger and registry name."""
    name = "checkpoint"
    md5 = info.tags.get("md5", "") if data is None else json.loads(data)["predicate"]["links"]["teacher"]["md5"]
    found = {file: kept.sha256(one) for file, one in (kept.files(md5) if md5 else {}).items()}
    files = {file: digest for file, digest in found.items() if digest is not None}
    if not files or len(files) < len(found):
        return missing(name, f"{md5[:12]} is not whole in DVC's cache or remote", info.package)
    digest = statement.tree_digest(files)
    if data is not None and (wrong := statement.differences(json.loads(data), files)):
        return altered(name, "; ".join(wrong), info.package)
    named = [("the ledger", entry.package) for entry in entries] + [("the registry's tag", info.package)]
    for who, stated in named:
        if stated != digest:
            return altered(name, f"it hashes to {digest[:12]}, {who} names {stated[:12]}", stated)
    return _held_against(name, digest, data, entries)


def _gate(root: Path, info: VersionInfo, entries: Sequence[Entry]) -> Link:
    stated = next((entry.verdict for entry in reversed(entries) if entry.verdict), None)
    if stated is None:
        return missing("gate", "no entry names a decision")
    name = decision_file(stated)
    data = read_file(root, info.run_id, name)
    if data is None:
        return missing("gate", f"{name} of run {info.run_id} is gone", stated)
    try:
        decision = json.loads(data)
    except ValueError:
        return altered("gate", f"{name} of run {info.run_id} is no JSON any more", stated)
    found = decision_digest(decision)
    if found != stated:
        return altered("gate", f"the decision hashes to {found[:12]}, the ledger names {stated[:12]}", stated)
    passed = next(one["passed"] for one in decision["verdicts"] if one["student"] == info.name)
    says = f"{'passed' if passed else 'refused'}, held against version {decision['champion'] or 'none'}"
    return verified("gate", f"the decision is what the ledger names: {says}", stated)
