"""What is said about each rule that a row can break: the reason in quarantine and the words of the error."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RULE_TEXTS", "RuleText"]


class RuleText(NamedTuple):
    """The words of one rule; braces are filled from the night's settings (see `row_rules.RowRule`)."""

    reason: str
    """What stands in quarantine beside a row that breaks it."""
    must: str
    """What must hold: the beginning of the error."""
    found: str
    """What the rows that break it are like; follows *found 12 of 100 rows*."""
    advice: str
    """What to do about it."""


_TIME_UNIT = RuleText(
    "timestamp in {unit}",
    "timestamps must be seconds since 1970",
    "that look like {unit}",
    "divide the column by {factor} in the source, or give ISO dates (source.columns.timestamp)",
)


def _unit(unit: str, factor: str) -> RuleText:
    return RuleText(*(text.replace("{unit}", unit).replace("{factor}", factor) for text in _TIME_UNIT))


#: Rule → its words. In the order in which a row's reasons are given.
RULE_TEXTS: dict[str, RuleText] = {
    "schema": RuleText(
        "file without the snapshot's columns",
        "every file must have the snapshot's columns and types",
        "in files that have not ({broken})",
        "ingest the night again",
    ),
    "readable": RuleText(
        "{word} cannot be read",
        "{word} must be readable as {kind}",
        "whose cell is not",
        "repair the cells, or name another column (source.columns)",
    ),
    "unparsed": RuleText(
        "row cannot be read",
        "every row must have as many cells as the header",
        "that have not, or cannot be read at all",
        "repair the lines, and quote cells that hold the delimiter or a line break",
    ),
    "id_present": RuleText(
        "{word} missing",
        "{word} must be present",
        "without one (null or blank)",
        "fill the cells, or leave the rows out of the source",
    ),
    "id_length": RuleText(
        "{word} longer than {id_length} characters",
        "{word} must have at most {id_length} characters",
        "with longer ones",
        "check that source.columns names the id's column, or raise validate.id_length",
    ),
    "time_present": RuleText(
        "{word} missing",
        "{word} must be present",
        "without one",
        "fill the cells, or leave the rows out of the source",
    ),
    "milliseconds": _unit("milliseconds", "1000"),
    "microseconds": _unit("microseconds", "1000000"),
    "nanoseconds": _unit("nanoseconds", "1000000000"),
    "early": RuleText(
        "timestamp before {earliest}",
        "timestamps must be seconds since 1970 and not before {earliest}",
        "before it",
        "check the column's unit, or set validate.earliest",
    ),
    "late": RuleText(
        "timestamp after as_of",
        "timestamps must not be after the night's as_of {as_of}",
        "after it",
        "check the source's clock and time zone, or keep later rows for a later night (source.later_rows: leave)",
    ),
    "rating_nan": RuleText(
        "rating is NaN",
        "ratings must be numbers",
        "with NaN",
        "repair the cells, or leave the rows out of the source",
    ),
    "rating_range": RuleText(
        "rating outside {rating_min:g} to {rating_max:g}",
        "ratings must be in {rating_min:g} to {rating_max:g}",
        "outside it",
        "check the scale, or set validate.rating_min and validate.rating_max",
    ),
    "rating_present": RuleText(
        "rating missing",
        "every row must have a rating where the source has a rating column and no event types",
        "without one (empty or NaN)",
        "fill the cells, or set source.columns.rating to null so that ratings are ignored",
    ),
    "event_present": RuleText(
        "event missing",
        "every row must have an event type",
        "without one",
        "fill the cells, or set source.columns.event to null",
    ),
    "event_known": RuleText(
        "event type without a weight",
        "event types must be among {events}",
        "of other types",
        "give the type a weight (event_weights), or leave the rows out of the source",
    ),
    "item_known": RuleText(
        "item not in the item table",
        "every item must be in the item table",
        "whose item is not",
        "add the missing items to the item table, or run without one",
    ),
    "duplicate": RuleText(
        "duplicate of an earlier row",
        "user, item and {word} together must not repeat",
        "that repeat an earlier one",
        "export each event once, or give a finer {word}",
    ),
}
