"""What the accepted rows must be like together: enough of them, and about as many as last night."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.data.expectations import Expectation
from stillhouse.data.night_rows import NightRows
from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.params.validate import ValidateParams

__all__ = ["ACCEPTED", "TableCheck", "accepted_column", "table_checks"]

#: The suite's column that says which rows are accepted; their number is its sum.
ACCEPTED = "accepted"


@dataclass(frozen=True)
class TableCheck:
    """One check of the whole night."""

    expectation: Expectation
    value: Any
    """What was found."""
    limit: Any
    """What it is held against: one number, or a pair of least and most."""
    broken: str
    """The one line that stops the night when it fails."""

    @property
    def name(self) -> str:
        """The check's name in the verdict."""
        return self.expectation.name


def accepted_column(column: str) -> str:
    """Return the name of the suite's column that holds ``column`` of accepted rows and nothing of the others."""
    return f"{ACCEPTED}: {column}"


def table_checks(
    rows: NightRows, params: ValidateParams, profile: Mapping[str, Any], previous: Mapping[str, Any] | None
) -> list[TableCheck]:
    """Return the checks of the whole night, in the order in which a broken one is named.

    Args:
        rows: the snapshot.
        params: the limits.
        profile: tonight's accepted rows (``rows``, ``users``, ``items``, ``ratings``).
        previous: last night's profile; without one, or with one of no rows, the volume is not checked.
    """
    checks = [*_types(), _rows(rows, params, profile)]
    checks += [_distinct("users", "user_id", params.min_users, profile)]
    checks += [_distinct("items", "item_id", params.min_items, profile)]
    if rows.has_rating and profile["rows"]:
        checks.append(_ratings(profile))
    if previous is not None and previous["rows"]:
        checks.append(_volume(params, profile, previous))
    return checks


def _types() -> Iterator[TableCheck]:
    names = [name for name in SNAPSHOT_SCHEMA.names if name != "unparsed"]
    arguments: dict[str, Any] = {"column_set": names, "exact_match": False}
    text = f"the columns must be {', '.join(names)}"
    yield TableCheck(Expectation("columns", "ExpectTableColumnsToMatchSet", arguments, text), names, names, text)
    for column, kind in (("time", "int64"), ("rating", "float64")):
        text = f"{column} must be of type {kind}"
        expectation = Expectation(
            f"type of {column}", "ExpectColumnValuesToBeOfType", {"column": column, "type_": kind}, text
        )
        yield TableCheck(expectation, kind, kind, text)


def _rows(rows: NightRows, params: ValidateParams, profile: Mapping[str, Any]) -> TableCheck:
    least = params.min_rows
    text = f"a night must have at least {least:,} accepted rows"
    if rows.n == 0:
        broken = f"{text}, found none: the source has no rows up to as_of; is the file empty, or the query too narrow?"
    else:
        broken = (
            f"{text}, found {profile['rows']:,} of the snapshot's {rows.n:,}: "
            "bring more data, or lower validate.min_rows (params.yaml)"
        )
    expectation = Expectation("rows", "ExpectColumnSumToBeBetween", {"column": ACCEPTED, "min_value": least}, text)
    return TableCheck(expectation, profile["rows"], least, broken)


def _distinct(what: str, column: str, least: int, profile: Mapping[str, Any]) -> TableCheck:
    text = f"a night must have at least {least:,} {what}"
    broken = (
        f"{text}, found {profile[what]:,} in {profile['rows']:,} accepted rows (column {column}): "
        f"check that source.columns names the right column, bring more data, or lower validate.min_{what} (params.yaml)"
    )
    arguments = {"column": accepted_column(column), "min_value": least}
    expectation = Expectation(what, "ExpectColumnUniqueValueCountToBeBetween", arguments, text)
    return TableCheck(expectation, profile[what], least, broken)


def _ratings(profile: Mapping[str, Any]) -> TableCheck:
    text = "some accepted rows must have a rating where the source has a rating column"
    broken = (
        f"{text}, found none in {profile['rows']:,} (column rating is empty or NaN throughout): "
        "repair the column, or set source.columns.rating to null (params.yaml)"
    )
    arguments = {"column": accepted_column("rating"), "min_value": 1}
    expectation = Expectation("ratings", "ExpectColumnSumToBeBetween", arguments, text)
    return TableCheck(expectation, profile["ratings"], 1, broken)


def _volume(params: ValidateParams, profile: Mapping[str, Any], previous: Mapping[str, Any]) -> TableCheck:
    before, ratio = previous["rows"], profile["rows"] / previous["rows"]
    low, high = params.volume_min, params.volume_max
    text = f"tonight's accepted rows must be {low:g} to {high:g} times last night's {before:,}"
    cause = "is the source cut off" if ratio < low else "was the source loaded twice"
    broken = (
        f"{text}, found {profile['rows']:,} ({ratio:.2f} times): {cause}? "
        "If it is meant, widen validate.volume_min and validate.volume_max (params.yaml) for a night"
    )
    # In rows, since that is what the suite counts; the bounds are those of the ratio.
    bounds = {"min_value": math.ceil(low * before - 1e-9), "max_value": math.floor(high * before + 1e-9)}
    expectation = Expectation("volume", "ExpectColumnSumToBeBetween", {"column": ACCEPTED, **bounds}, text)
    return TableCheck(expectation, round(ratio, 6), [low, high], broken)
