"""Stage ``admit``: the door. It lets the accepted rows through, or stops the night with one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.files import read_json, sha256_file, write_json
from stillhouse.errors import DataError, one_line
from stillhouse.params.admit import AdmitParams
from stillhouse.reporting import Reporter

__all__ = ["admit"]


def admit(
    *, verdict: Path, admitted: Path, params: AdmitParams, reporter: Reporter
) -> Mapping[str, float | int | str | None]:
    """Write ``admitted`` when few enough rows are quarantined and every check of the whole night holds.

    Args:
        verdict: what `validate` found.
        admitted: for the digest of the verdict, the accepted rows and the quarantined share (JSON).
        params: how much quarantine a night bears.
        reporter: not used; nothing is to be said of a night that is let in.

    Returns:
        ``accepted_rows`` and ``quarantined_share``.

    Raises:
        DataError: too many rows are quarantined (the line is about the commonest reason), or a
            check of the whole night is broken. Of both, quarantine is named: it tends to be the cause.
    """
    found = read_json(verdict)
    share = found["quarantined_rows"] / max(1, found["snapshot_rows"])
    if share > params.max_quarantined:
        raise DataError(_too_much(found, share, params))
    if not found["passed"]:
        raise DataError(_broken(found))
    accepted = {"accepted_rows": found["accepted_rows"], "quarantined_share": share}
    write_json(admitted, {"verdict": sha256_file(verdict), **accepted})
    return accepted


def _too_much(found: Mapping[str, Any], share: float, params: AdmitParams) -> str:
    worst = max((check for check in found["checks"] if "reason" in check), key=lambda check: check["value"])
    others = len(found["reasons"]) - 1
    more = f", {others} other reason{'s' if others > 1 else ''} beside it" if others else ""
    return one_line(
        f"{worst['text']} [{share:.1%} of the rows are in quarantine{more}; "
        f"admit.max_quarantined bears {params.max_quarantined:.1%}]"
    )


def _broken(found: Mapping[str, Any]) -> str:
    first, *others = [check for check in found["checks"] if check["level"] == "table" and not check["passed"]]
    also = f" [also broken: {', '.join(check['name'] for check in others)}]" if others else ""
    return one_line(first["text"] + also)
