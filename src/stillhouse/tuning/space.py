"""What a search varies: a student's settings, each with where it stands, its value today and its range."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from stillhouse.errors import ParamsError
from stillhouse.params.tune import Range, Share, TuneParams

__all__ = ["Dimension", "Place", "search_space", "with_values"]

Place = tuple[str | int, ...]
"""Keys and list indices that lead to a setting, below one student's entry in params.yaml."""

#: Significant digits of a drawn value: what a person would write down.
_DIGITS = 3


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched."""

    name: str
    """What tables, plot and tracking call it."""
    place: Place
    """Where it stands, such as ``("distillation", "alpha")``."""
    stands: float
    """Its value today."""
    distribution: BaseDistribution

    def used(self, drawn: float) -> float:
        """Return what a trial is run with: ``drawn`` in three digits, within the range; what stands stays exact."""
        if drawn == self.stands or not isinstance(self.distribution, FloatDistribution):
            return drawn
        return min(max(float(f"{drawn:.{_DIGITS}g}"), self.distribution.low), self.distribution.high)


def search_space(
    tune: TuneParams,
    training: Mapping[str, Any],
    distillation: Mapping[str, Any],
    temperatures: Sequence[float],
    *,
    hears: bool = True,
) -> list[Dimension]:
    """Return the settings that are searched, in an order that stays the same.

    What follows a schedule, or has no second value to take, is not among them; nor is what a teacher says to a
    student that learns alone from smoothed labels.

    Args:
        tune: ranges; each is widened to hold what stands.
        training: the student's training settings today.
        distillation: its distillation settings today as params.yaml has them; each method with its weight.
        temperatures: those that the soft-target store was written for.
        hears: whether what a teacher says to the student is searched at all.

    Raises:
        ParamsError: ``tune.temperatures`` names one that the store lacks, or nothing is left to search.
    """
    rate = _ranged("learning_rate", ("training", "learning_rate"), training["learning_rate"], tune.learning_rate)
    taught: list[Dimension | None] = []
    if hears and not distillation.get("label_smoothing"):
        place, stands = _constant("alpha", distillation)
        alpha = _ranged("alpha", place, stands, tune.alpha)
        weights = _weights(tune, distillation.get("methods") or [], measured=alpha is not None)
        taught = [alpha, _temperature(tune, distillation, temperatures), *weights]
    space = [dimension for dimension in (*taught, rate) if dimension is not None]
    if not space:
        raise ParamsError(
            "a search must have a setting to vary, found none: give alpha, temperatures, learning_rate or "
            "method_weight a range (params.yaml: tune)"
        )
    return space


def _constant(name: str, distillation: Mapping[str, Any]) -> tuple[Place, float | None]:
    """Return where the number of ``name`` stands and what it is; ``None``: it follows a schedule."""
    place, stands = ("distillation", name), distillation[name]
    if isinstance(stands, Mapping):
        return (*place, "value"), stands["value"] if stands["kind"] == "constant" else None
    return place, stands


def _ranged(name: str, place: Place, stands: float | None, within: Share | Range | None) -> Dimension | None:
    log = isinstance(within, Range)
    if within is None or stands is None or (log and stands <= 0):
        return None
    low, high = min(within.low, stands), max(within.high, stands)
    return Dimension(name, place, float(stands), FloatDistribution(low, high, log=log))


def _temperature(tune: TuneParams, distillation: Mapping[str, Any], temperatures: Sequence[float]) -> Dimension | None:
    for wanted in tune.temperatures or ():
        if wanted not in temperatures:
            known = ", ".join(f"{value:g}" for value in temperatures)
            raise ParamsError(
                f"temperatures must be among the soft-target store's ({known}), got {wanted:g} (params.yaml: "
                "tune.temperatures): leave it out, or add it to export_soft_targets.temperatures and run a night"
            )
    place, stands = _constant("temperature", distillation)
    if stands is None:
        return None
    choices = sorted({float(stands), *(temperatures if tune.temperatures is None else tune.temperatures)})
    if len(choices) == 1:
        return None
    return Dimension("temperature", place, float(stands), CategoricalDistribution(choices))


def _weights(tune: TuneParams, methods: Sequence[Mapping[str, Any]], *, measured: bool) -> list[Dimension | None]:
    """Return the methods' weights; where alpha weighs them together, the first is what the others are measured by."""
    return [
        _ranged(
            f"weight.{method['kind']}",
            ("distillation", "methods", index, "weight"),
            method["weight"],
            tune.method_weight,
        )
        for index, method in enumerate(methods)
        if index or not measured
    ]


def with_values(settings: Mapping[str, Any], values: Mapping[Place, float]) -> dict[str, Any]:
    """Return a copy of nested ``settings`` in which each place holds its value.

    >>> with_values({"distillation": {"methods": [{"weight": 1.0}]}}, {("distillation", "methods", 0, "weight"): 2.0})
    {'distillation': {'methods': [{'weight': 2.0}]}}
    """
    changed = copy.deepcopy(dict(settings))
    for (*parents, last), value in values.items():
        section: Any = changed
        for key in parents:
            section = section[key]
        section[last] = value
    return changed
