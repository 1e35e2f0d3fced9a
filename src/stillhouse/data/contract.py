"""What data may enter: the rules of `row_rules` and the checks of the whole night, judged by one suite.

Rows that break a rule go to quarantine with their reasons. What is left, the
accepted rows, must be enough, of enough users and items, and about as many as
last night. A broken check of the whole night carries the line that the stage
``admit`` stops the night with.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillhouse.data.expectations import Expectation, Outcome, run_suite
from stillhouse.data.night_rows import NightRows
from stillhouse.data.row_rules import RowRule, row_rules
from stillhouse.data.row_values import Bools, flat, valid
from stillhouse.data.table_checks import ACCEPTED, TableCheck, accepted_column, table_checks
from stillhouse.params.validate import ValidateParams

__all__ = ["Judgement", "judge"]

#: What a column about a rule holds; a row that breaks the rule has none of it.
_KEPT = pd.CategoricalDtype(["kept"])


@dataclass(frozen=True, eq=False)
class Judgement:
    """What was found about one snapshot."""

    accepted: Bools
    """[n] the rows that break no rule."""
    rules: list[RowRule]
    """The rules, in the order in which a row's reasons are given."""
    verdict: dict[str, Any]
    """``reports/verdict.json``."""
    profile: dict[str, Any]
    """``profile/profile.json``: what the next night's volume is measured against."""


def judge(rows: NightRows, params: ValidateParams, previous: Mapping[str, Any] | None, docs: Path) -> Judgement:
    """Check ``rows`` and write Great Expectations' Data Docs to ``docs``.

    Args:
        rows: the snapshot.
        params: limits and ``as_of``.
        previous: last night's profile, or none on a first night.
        docs: directory to be made for the Data Docs, as Great Expectations makes them (they refer to the network).

    Raises:
        RuntimeError: Great Expectations counts other rows than the rules do; a defect.
    """
    rules = row_rules(rows, params)
    accepted = ~np.logical_or.reduce([rule.bad for rule in rules])
    profile = _profile(rows, accepted)
    checks = table_checks(rows, params, profile, previous)
    counts = [int(np.count_nonzero(rule.bad)) for rule in rules]
    lines = [rule.line(rows, count) if count else "" for rule, count in zip(rules, counts, strict=True)]
    suite = [_row_expectation(rule) for rule in rules]
    suite += [check.expectation for check in checks]
    outcomes = run_suite(_frame(rows, rules, accepted), suite, docs)
    for rule, count in zip(rules, counts, strict=True):
        if outcomes[rule.name].value != count:
            raise RuntimeError(f"{rule.name}: rules count {count} rows, the suite {outcomes[rule.name].value}")
    entries = [_row_entry(rule, count, line) for rule, count, line in zip(rules, counts, lines, strict=True)]
    entries += [_table_entry(check, outcomes[check.name]) for check in checks]
    reasons = {rule.reason: count for rule, count in zip(rules, counts, strict=True) if count}
    return Judgement(accepted, rules, _verdict(rows, accepted, reasons, entries), profile)


def _verdict(
    rows: NightRows, accepted: Bools, reasons: Mapping[str, int], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    kept = int(np.count_nonzero(accepted))
    return {
        "snapshot_rows": rows.n,
        "accepted_rows": kept,
        "quarantined_rows": rows.n - kept,
        "reasons": dict(reasons),
        "checks": entries,
        "passed": all(entry["passed"] for entry in entries if entry["level"] == "table"),
    }


def _row_entry(rule: RowRule, count: int, line: str) -> dict[str, Any]:
    return {
        # A file with other columns is a fault of the whole night, however few its rows.
        "level": "table" if rule.kind == "schema" else "row",
        "name": rule.name,
        "reason": rule.reason,
        "passed": count == 0,
        "value": count,
        "limit": 0,
        "text": line or rule.must,
    }


def _table_entry(check: TableCheck, outcome: Outcome) -> dict[str, Any]:
    return {
        "level": "table",
        "name": check.name,
        "passed": outcome.success,
        "value": check.value,
        "limit": check.limit,
        "text": check.expectation.text if outcome.success else check.broken,
    }


def _row_expectation(rule: RowRule) -> Expectation:
    if rule.native is None:
        return Expectation(rule.name, "ExpectColumnValuesToNotBeNull", {"column": rule.name}, rule.must)
    kind = "ExpectColumnValuesToBeInSet" if "value_set" in rule.native else "ExpectColumnValuesToBeBetween"
    native = dict(rule.native)
    if "value_set" in native:
        native["value_set"] = [html.escape(value) for value in native["value_set"]]
    return Expectation(rule.name, kind, {"column": rule.column, **native}, rule.must)


def _frame(rows: NightRows, rules: list[RowRule], accepted: Bools) -> pd.DataFrame:
    """Return what the suite looks at: the columns themselves, which rows keep each rule, and what is accepted."""
    columns: dict[str, Any] = {name: rows.values(name).to_pandas() for name in ("user_id", "item_id", "event")}
    # Great Expectations prints what it found as it is; a page of evidence must not run what a cell holds.
    columns["event"] = columns["event"].cat.rename_categories(html.escape)
    columns["time"] = pd.arrays.IntegerArray(_filled(rows, "time"), ~valid(rows, "time"))
    columns["rating"] = flat(rows.values("rating").cast("float64"))
    columns |= {rule.name: _kept(rule.bad) for rule in rules if rule.native is None}
    columns[ACCEPTED] = accepted
    for name in ("user_id", "item_id"):
        codes = np.where(accepted, rows.codes(name), np.int32(-1))
        columns[accepted_column(name)] = pd.Categorical.from_codes(codes, dtype=columns[name].dtype)
    columns[accepted_column("rating")] = accepted & valid(rows, "rating")
    return pd.DataFrame(columns, copy=False)


def _kept(bad: Bools) -> pd.Categorical:
    """Return a column that says ``kept`` where a rule is kept and nothing where it is broken.

    One byte a row, and the missing ones are found some ten times as fast as
    the false ones of a column of booleans.
    """
    return pd.Categorical.from_codes(np.negative(bad.view(np.int8)), dtype=_KEPT, validate=False)


def _filled(rows: NightRows, column: str) -> Any:
    return np.array(flat(rows.values(column).fill_null(0)))


def _profile(rows: NightRows, accepted: Bools) -> dict[str, Any]:
    times = _filled(rows, "time")[accepted]
    return {
        "rows": len(times),
        "users": _distinct(rows, "user_id", accepted),
        "items": _distinct(rows, "item_id", accepted),
        "ratings": int(np.count_nonzero(valid(rows, "rating")[accepted])),
        "order": rows.order,
        "first_time": int(times.min()) if len(times) else None,
        "last_time": int(times.max()) if len(times) else None,
    }


def _distinct(rows: NightRows, column: str, accepted: Bools) -> int:
    seen = np.zeros(len(rows.names(column)) + 1, bool)  # one more than there are names: code -1 (null) marks the last
    seen[rows.codes(column)[accepted]] = True
    return int(np.count_nonzero(seen))
