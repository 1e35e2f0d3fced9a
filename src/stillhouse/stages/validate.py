"""Stage ``validate``: which rows may enter, which may not and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stillhouse.data.contract import judge
from stillhouse.data.data_docs import make_offline
from stillhouse.data.files import is_none, read_json, write_json
from stillhouse.data.night_rows import read_snapshot
from stillhouse.data.quarantine import write_accepted, write_quarantine
from stillhouse.params.validate import ValidateParams
from stillhouse.reporting import Reporter

__all__ = ["validate"]


def validate(
    *,
    snapshot: Path,
    previous_profile: Path,
    accepted: Path,
    quarantine: Path,
    profile: Path,
    verdict: Path,
    data_docs: Path,
    params: ValidateParams,
    reporter: Reporter,
) -> Mapping[str, float | int | str | None]:
    """Part the snapshot into accepted and quarantined rows and write the verdict.

    Bad data is no error here: the stage succeeds, so that the evidence is kept,
    and `admit` stops the night. All outputs but ``data_docs`` are the same
    bytes from run to run.

    Args:
        snapshot: what `ingest` wrote.
        previous_profile: last night's ``profile``, or ``none.json``.
        accepted: for the rows that may enter.
        quarantine: for the others, each with its reasons.
        profile: for ``profile.json``, what the next night's volume is measured against.
        verdict: for the verdict (JSON).
        data_docs: for Great Expectations' Data Docs; they open without a network.
        params: limits and ``as_of``.
        reporter: hears how many rows are quarantined.

    Returns:
        ``snapshot_rows``, ``accepted_rows``, ``quarantined_rows``, ``quarantined_share`` (0 for an
        empty snapshot), ``users``, ``items`` and ``failed_checks`` (checks of the whole night).
    """
    rows = read_snapshot(snapshot)
    before = None if is_none(previous_profile) else read_json(previous_profile / "profile.json")
    judgement = judge(rows, params, before, data_docs)
    found = judgement.verdict
    make_offline(data_docs, found)
    write_accepted(accepted, rows, judgement.accepted, params.id_length)
    write_quarantine(quarantine, rows, judgement.accepted, judgement.rules, found["reasons"])
    profile.mkdir(parents=True)
    write_json(profile / "profile.json", judgement.profile)
    write_json(verdict, found)
    if found["quarantined_rows"]:
        reporter.note(f"{found['quarantined_rows']:,} of {found['snapshot_rows']:,} rows are in quarantine")
    failed = [check["name"] for check in found["checks"] if check["level"] == "table" and not check["passed"]]
    return {
        "snapshot_rows": found["snapshot_rows"],
        "accepted_rows": found["accepted_rows"],
        "quarantined_rows": found["quarantined_rows"],
        "quarantined_share": found["quarantined_rows"] / max(1, found["snapshot_rows"]),
        "users": judgement.profile["users"],
        "items": judgement.profile["items"],
        "failed_checks": len(failed),
    }
