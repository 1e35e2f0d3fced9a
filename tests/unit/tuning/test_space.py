from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from stillhouse.errors import ParamsError
from stillhouse.params.base import build
from stillhouse.params.tune import Range, TuneParams
from stillhouse.tuning.space import Dimension, search_space

TRAINING = {"learning_rate": 0.01}
DISTILLATION: dict[str, Any] = {"alpha": 0.3, "temperature": 1.0}
METHODS = [
    {"kind": "soft", "weight": 1.0},
    {"kind": "regression", "weight": 0.5},
    {"kind": "listwise", "weight": 2.0},
    {"kind": "features", "weight": 0.0},
]


def found(
    temperatures: tuple[float, ...] = (1.0, 2.0), distillation: dict[str, Any] | None = None, **tune: Any
) -> dict[str, Dimension]:
    """Return the search space by name."""
    space = search_space(TuneParams(**tune), TRAINING, {**DISTILLATION, **(distillation or {})}, temperatures)
    return {dimension.name: dimension for dimension in space}


def test_alpha_temperature_and_learning_rate_are_searched() -> None:
    space = found()
    assert {name: one.place for name, one in space.items()} == {
        "alpha": ("distillation", "alpha"),
        "temperature": ("distillation", "temperature"),
        "learning_rate": ("training", "learning_rate"),
    }
    assert space["alpha"].distribution == FloatDistribution(0.05, 0.95)
    assert space["temperature"].distribution == CategoricalDistribution([1.0, 2.0])
    assert space["learning_rate"].distribution == FloatDistribution(0.001, 0.05, log=True)


def test_what_stands_is_always_within() -> None:
    space = found(learning_rate=Range(low=0.1, high=0.2), distillation={"alpha": 1.0}, temperatures=(1.0, 2.0))
    assert space["learning_rate"].distribution == FloatDistribution(0.01, 0.2, log=True)
    assert space["alpha"].distribution == FloatDistribution(0.05, 1.0)
    assert found(**{"temperatures": (1.0, 2.0, 4.0)}) != {}
    narrow = search_space(TuneParams(temperatures=(2.0,)), TRAINING, DISTILLATION, (1.0, 2.0, 4.0))
    assert narrow[1].distribution == CategoricalDistribution([1.0, 2.0])


def test_null_and_schedules_and_single_choices_are_left_as_they_are() -> None:
    assert set(found(alpha=None)) == {"temperature", "learning_rate"}
    assert set(found(distillation={"alpha": {"kind": "linear", "start": 1.0, "end": 0.1}})) == {
        "temperature",
        "learning_rate",
    }
    assert set(found(temperatures=(1.0,))) == {"alpha", "learning_rate"}


def test_the_first_methods_weight_is_the_measure_of_the_others_while_alpha_is_searched() -> None:
    space = found(distillation={"methods": METHODS})
    assert [name for name in space if name.startswith("weight")] == ["weight.regression", "weight.listwise"]
    assert space["weight.listwise"].place == ("distillation", "methods", 2, "weight")
    alone = found(distillation={"methods": METHODS}, alpha=None)
    assert [name for name in alone if name.startswith("weight")] == [
        "weight.soft",
        "weight.regression",
        "weight.listwise",
    ]


def test_a_constant_that_is_written_out_is_searched_where_its_number_stands() -> None:
    constant = {"kind": "constant", "value": 0.3}
    assert found(distillation={"alpha": constant})["alpha"].place == ("distillation", "alpha", "value")


def test_a_student_alone_with_smoothed_labels_has_its_learning_rate_searched() -> None:
    assert set(found(distillation={"alpha": 1.0, "label_smoothing": 0.1})) == {"learning_rate"}


def test_a_temperature_that_the_store_lacks_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"soft-target store's \(1, 2\), got 3 .*tune.temperatures"):
        search_space(TuneParams(temperatures=(3.0,)), TRAINING, DISTILLATION, (1.0, 2.0))


def test_a_search_of_nothing_is_refused() -> None:
    nothing = TuneParams(alpha=None, temperatures=(1.0,), learning_rate=None)
    with pytest.raises(ParamsError, match="must have a setting to vary"):
        search_space(nothing, TRAINING, DISTILLATION, (1.0, 2.0))


def test_a_range_upside_down_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"low must be < high.*params.yaml: tune.alpha"):
        build(TuneParams, {"alpha": {"low": 0.5, "high": 0.1}}, "params.yaml: tune")


def test_a_drawn_value_has_three_digits_and_what_stands_is_exact() -> None:
    one = Dimension("alpha", ("distillation", "alpha"), 0.123456, FloatDistribution(0.0, 1.0))
    assert one.used(0.654321) == 0.654
    assert one.used(0.123456) == 0.123456


def test_three_digits_do_not_lead_out_of_the_range() -> None:
    stands = search_space(TuneParams(), {"learning_rate": 0.00050049}, DISTILLATION, (1.0,))[-1]
    assert stands.distribution == FloatDistribution(0.00050049, 0.05, log=True)
    assert stands.used(0.00050051) == 0.000501
    assert stands.used(0.000500491) == 0.00050049
    assert Dimension("alpha", ("a",), 0.5, FloatDistribution(0.0, 0.9996)).used(0.9995999) == 0.9996


def test_a_learning_rate_that_training_does_not_take_is_refused_before_the_search() -> None:
    with pytest.raises(ParamsError, match=r"high must be at most 1.*params.yaml: tune.learning_rate"):
        build(TuneParams, {"learning_rate": {"low": 0.1, "high": 5.0}}, "params.yaml: tune")
