import json

import pytest

from stillhouse.data.files import sha256_file, write_json
from stillhouse.errors import DataError
from stillhouse.params.admit import AdmitParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.admit import admit


@pytest.fixture
def let_in(tmp_path):
    """Give a function that admits a verdict and returns what was written."""

    def run(verdict, bears=0.05):
        write_json(tmp_path / "verdict.json", verdict)
        params = AdmitParams(max_quarantined=bears)
        where = {"verdict": tmp_path / "verdict.json", "admitted": tmp_path / "admitted.json"}
        metrics = admit(**where, params=params, reporter=SilentReporter())
        return metrics, json.loads((tmp_path / "admitted.json").read_text())

    return run


def row(reason, count):
    return {"level": "row", "name": reason, "reason": reason, "passed": not count, "value": count, "text": f"{reason}!"}


def table(name, passed):
    return {"level": "table", "name": name, "passed": passed, "value": 1, "limit": 1, "text": f"{name} must hold"}


def verdict(rows, checks):
    counts = {check["reason"]: check["value"] for check in checks if check.get("reason") and check["value"]}
    bad = sum(counts.values())
    return {
        "snapshot_rows": rows,
        "accepted_rows": rows - bad,
        "quarantined_rows": bad,
        "reasons": counts,
        "checks": checks,
        "passed": all(check["passed"] for check in checks if check["level"] == "table"),
    }


def test_a_night_within_bounds_is_let_in_with_the_digest_of_its_verdict(let_in, tmp_path):
    metrics, written = let_in(verdict(100, [row("a", 5), table("rows", True)]))
    assert metrics == {"accepted_rows": 95, "quarantined_share": 0.05}
    assert written == {**metrics, "verdict": sha256_file(tmp_path / "verdict.json")}


def test_too_much_quarantine_stops_the_night_with_the_commonest_reason(let_in, tmp_path):
    checks = [row("a", 2), row("b", 4), row("c", 0), table("rows", True)]
    with pytest.raises(DataError) as stopped:
        let_in(verdict(100, checks))
    assert str(stopped.value) == (
        "b! [6.0% of the rows are in quarantine, 1 other reason beside it; admit.max_quarantined bears 5.0%]"
    )
    assert not (tmp_path / "admitted.json").exists()


def test_a_broken_check_stops_the_night_and_others_are_named(let_in):
    with pytest.raises(DataError, match=r"^users must hold \[also broken: items, volume\]$"):
        let_in(verdict(100, [row("a", 1), *(table(name, False) for name in ("users", "items", "volume"))]))


def test_quarantine_is_named_before_the_broken_checks_that_it_causes(let_in):
    with pytest.raises(DataError, match=r"^a! \[50.0% "):
        let_in(verdict(100, [row("a", 50), table("rows", False)]))


def test_a_share_of_one_bears_everything_but_a_broken_check(let_in):
    assert let_in(verdict(10, [row("a", 10), table("rows", True)]), bears=1.0)[0]["accepted_rows"] == 0
    with pytest.raises(DataError, match="rows must hold"):
        let_in(verdict(10, [row("a", 10), table("rows", False)]), bears=1.0)


def test_no_row_in_quarantine_is_borne_at_a_share_of_zero(let_in):
    with pytest.raises(DataError, match=r"0.0% of the rows .* bears 0.0%"):
        let_in(verdict(10_000, [row("a", 1), table("rows", True)]), bears=0.0)
    let_in(verdict(10_000, [row("a", 0), table("rows", True)]), bears=0.0)
