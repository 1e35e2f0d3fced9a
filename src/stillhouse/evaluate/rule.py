"""One rule of the gate: a value, a limit, and whether the one keeps to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Rule", "at_least", "at_most"]


@dataclass(frozen=True)
class Rule:
    """What one rule found."""

    name: str
    value: float | int | None
    """What was measured; None where there was nothing to measure."""
    limit: float | int | None
    """What it was held against."""
    passed: bool
    text: str
    """One line for a person, with value and limit in it."""
    inconclusive: bool = False
    """It could not be decided. That is not a pass."""


def at_least(name: str, what: str, value: float | None, limit: float) -> Rule:
    """Return a rule that passes when ``value`` is ``limit`` or more; NaN does not pass, None is inconclusive.

    >>> at_least("floor", "NDCG@10", 0.02, 0.01).text
    'NDCG@10 is 0.02, at least 0.01 asked'
    """
    return _rule(name, what, value, limit, value is not None and value >= limit, "at least")


def at_most(name: str, what: str, value: float | None, limit: float) -> Rule:
    """Return a rule that passes when ``value`` is ``limit`` or less; NaN does not pass, None is inconclusive.

    >>> at_most("bytes", "bytes", 7_000_000, 5_000_000).passed
    False
    """
    return _rule(name, what, value, limit, value is not None and value <= limit, "at most")


def _rule(name: str, what: str, value: float | None, limit: float, passed: bool, how: str) -> Rule:
    if value is None:
        return Rule(name, None, limit, False, f"{what} could not be measured, {how} {_plain(limit)} asked", True)
    plain = value if math.isfinite(value) else None
    return Rule(name, plain, limit, passed, f"{what} is {_plain(value)}, {how} {_plain(limit)} asked")


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
