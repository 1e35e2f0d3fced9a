"""How a distillation is written in params.yaml."""

from __future__ import annotations

import pytest

from stillhouse.errors import ParamsError
from stillhouse.params.base import build
from stillhouse.params.distillation import ConstantAlpha, ConstantTemperature, DistillationSpec, SoftSpec

PLAIN = {"alpha": 0.3, "temperature": 1.0}


def spec(**changes):
    return build(DistillationSpec, PLAIN | changes, "params.yaml: train_student.distillation")


def test_a_number_is_a_schedule_that_is_that_number_throughout():
    assert spec().alpha == ConstantAlpha(kind="constant", value=0.3)
    assert spec().temperature == ConstantTemperature(kind="constant", value=1.0)
    assert spec(alpha={"kind": "constant", "value": 0.3}) == spec()
    assert spec(alpha="3e-1") == spec()  # as YAML reads 3e-1


def test_the_plain_distillation_is_soft_labels_everywhere():
    assert spec().methods == (SoftSpec(kind="soft", weight=1.0),)
    assert (spec().trust, spec().finetune, spec().start, spec().alone) == ("everywhere", 0.0, "fresh", False)
    assert spec(alpha=1.0).alone
    assert not spec(alpha={"kind": "linear", "start": 1.0, "end": 1.0}).alone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha": 1.5}, r"alpha.value: input should be less than or equal to 1, got 1.5"),
        ({"alpha": {"kind": "linear", "start": 1.0}}, r"alpha.end must be set, found nothing"),
        ({"temperature": 0}, r"temperature.value: input should be greater than 0"),
        ({"temperature": {"kind": "stepped"}}, r"temperature must be one of adaptive, constant, cosine, linear"),
        ({"alpha": True}, r"alpha: must be a number or a schedule, got True"),
        ({"alpha": "much"}, r"alpha: must be a number or a schedule, got 'much'"),
        ({"temperature": [1.0]}, r"temperature: must be a number or a schedule, got \[1.0\]"),
        ({"alpha": {"kind": "linear", "start": True, "end": 0.0}}, r"alpha.start must be a number, got True"),
        ({"methods": [{"kind": "pseudo_labels", "k": True}]}, r"methods.0.k must be a number, got True"),
        ({"methods": [{"kind": "relations", "distance": 0, "angle": 0}]}, r"distance or angle must be above 0"),
        ({"methods": [{"kind": "soft", "weight": 0}]}, r"a method must have a weight above 0, found none"),
        ({"methods": "soft"}, r"methods must be a list, got 'soft'"),
        ({"methods": []}, r"methods must hold one at least; .* set alpha to 1 \("),
        ({"methods": [{"kind": "sfot"}]}, r"did you mean soft\?"),
        ({"methods": [{"kind": "soft"}, {"kind": "soft", "weight": 2.0}]}, r"soft more than once"),
        ({"methods": [{"kind": "soft", "wieght": 1.0}]}, r"did you mean weight\?"),
        ({"trust": "nowhere"}, r"trust must be one of"),
        ({"finetune": 1.0}, r"finetune: input should be less than 1"),
        ({"label_smoothing": 0.1}, r"label_smoothing is a control for a student alone: it needs alpha 1"),
    ],
)
def test_what_is_impossible_is_said_in_one_line_that_names_the_place(changes, said):
    with pytest.raises(ParamsError, match=said) as error:
        spec(**changes)
    assert "\n" not in str(error.value)
    assert "params.yaml: train_student.distillation" in str(error.value)


def test_label_smoothing_is_a_control_for_a_student_alone():
    assert spec(alpha=1.0, label_smoothing=0.1).label_smoothing == 0.1
