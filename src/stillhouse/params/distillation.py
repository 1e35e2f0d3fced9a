"""How a student learns from a teacher: what is mixed, by how much, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic_core import PydanticCustomError

from stillhouse.params.base import Frozen

__all__ = [
    "AdaptiveAlpha",
    "AdaptiveTemperature",
    "AlphaSpec",
    "ConstantAlpha",
    "ConstantTemperature",
    "DistillationSpec",
    "FeaturesSpec",
    "ListwiseSpec",
    "MethodSpec",
    "PseudoLabelsSpec",
    "RampedAlpha",
    "RampedTemperature",
    "RankSamplingSpec",
    "RegressionSpec",
    "RejuvenatedSpec",
    "RelationsSpec",
    "SoftSpec",
    "TemperatureSpec",
]

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Positive = Annotated[float, pydantic.Field(gt=0.0)]


def _constant(value: Any) -> Any:
    """Let a number stand for the schedule that is this number throughout."""
    if isinstance(value, Mapping | pydantic.BaseModel):
        return value
    try:
        number = None if isinstance(value, bool) else float(value)  # YAML reads 1e-1 as text
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise PydanticCustomError("schedule_type", "must be a number or a schedule")
    return {"kind": "constant", "value": number}


class _Ramp(Frozen):
    """What goes from ``start`` to ``end`` and stays there."""

    kind: Literal["linear", "cosine"]
    until: float = pydantic.Field(1.0, gt=0.0, le=1.0)
    """Share of the planned steps after which it is at its end."""


class ConstantAlpha(Frozen):
    """One weight throughout; a number alone says the same."""

    kind: Literal["constant"]
    value: Share
    """The weight."""


class RampedAlpha(_Ramp):
    """A weight that rises or falls as training goes on."""

    start: Share
    """At the first step."""
    end: Share
    """At the share ``until`` of the steps, and after."""


class AdaptiveAlpha(Frozen):
    """A weight for each position, by how sure the teacher is there (`stillhouse.distill.teacher_rows`)."""

    kind: Literal["adaptive"]
    sure: Share
    """Where the teacher is certain."""
    unsure: Share
    """Where it would choose among all items alike."""


AlphaSpec = Annotated[ConstantAlpha | RampedAlpha | AdaptiveAlpha, pydantic.Field(discriminator="kind")]
"""The weight of the hard loss, a number or a schedule."""


class ConstantTemperature(Frozen):
    """One temperature throughout, which the store must hold; a number alone says the same."""

    kind: Literal["constant"]
    value: Positive
    """The temperature."""


class RampedTemperature(_Ramp):
    """A temperature that rises or falls as training goes on; each step takes the nearest that the store holds."""

    start: Positive
    """At the first step."""
    end: Positive
    """At the share ``until`` of the steps, and after."""


class AdaptiveTemperature(Frozen):
    """A temperature for each batch, of those that the store holds."""

    kind: Literal["adaptive"]
    target: float = pydantic.Field(gt=0.0, lt=1.0)
    """Mean probability of the teacher's best item that it is to come nearest to."""


TemperatureSpec = Annotated[
    ConstantTemperature | RampedTemperature | AdaptiveTemperature, pydantic.Field(discriminator="kind")
]
"""The temperature of both sides, a number or a schedule."""


class _Method(Frozen):
    """What every method has."""

    weight: float = pydantic.Field(1.0, ge=0.0)
    """What it counts beside the others."""


class SoftSpec(_Method):
    """Soft labels with temperature (`stillhouse.distill.soft`)."""

    kind: Literal["soft"]
    standardise: bool = False
    """Compare standardised scores of the teacher's best items instead of probabilities."""


class PseudoLabelsSpec(_Method):
    """The teacher's first unseen items as labels (`stillhouse.distill.pseudo_labels`)."""

    kind: Literal["pseudo_labels"]
    k: int = pydantic.Field(1, ge=1)
    """How many of them."""
    decay: Positive | None = None
    """Places over which a label's weight falls by a factor of e; ``null``: all weigh the same."""


class RegressionSpec(_Method):
    """The teacher's scores up to a constant (`stillhouse.distill.regression`)."""

    kind: Literal["regression"]
    draws: bool = True
    """Whether items that the store drew from the tail are compared too."""
    standardise: bool = False
    """Compare standardised scores."""


class RejuvenatedSpec(_Method):
    """Rejuvenated cross-entropy, RCE-KD (`stillhouse.distill.rejuvenated`)."""

    kind: Literal["rejuvenated"]
    k: int = pydantic.Field(20, ge=1)
    """Items of a list, no more than the store holds; the cost grows with it."""
    beta: float = pydantic.Field(5.0, ge=0.0)
    """How fast the student's own list takes over as it comes to hold the teacher's."""
    decay: Positive = 10.0
    """Items below which the odds of a student's item rise by a factor of e."""


class RankSamplingSpec(_Method):
    """Item by item, by the teacher's ranking, CD (`stillhouse.distill.rank_sampling`)."""

    kind: Literal["rank_sampling"]
    samples: int | None = pydantic.Field(None, ge=1)
    """Items drawn a step; ``null``: all that the store holds, weighted by the odds of being drawn."""
    decay: Positive = 10.0
    """Places over which the odds fall by a factor of e."""
    spread: Positive = 1.0
    """What the teacher's log-odds are divided by."""
    shift: float = 0.0
    """What is added to them before."""


class ListwiseSpec(_Method):
    """The order of the teacher's best items, RRD (`stillhouse.distill.listwise`)."""

    kind: Literal["listwise"]
    samples: int | None = pydantic.Field(None, ge=1)
    """Interesting items drawn a step; ``null``: all that the store holds."""
    decay: Positive = 10.0
    """Places over which the odds of being drawn fall by a factor of e."""


class FeaturesSpec(_Method):
    """The teacher's states, through a learnt projection (`stillhouse.distill.features`)."""

    kind: Literal["features"]
    cosine: bool = False
    """Compare directions alone."""


class RelationsSpec(_Method):
    """How the teacher's positions lie to each other, RKD (`stillhouse.distill.relations`)."""

    kind: Literal["relations"]
    positions: int = pydantic.Field(64, ge=3, le=512)
    """Positions of a batch that are compared; the cost grows with their third power."""
    distance: float = pydantic.Field(1.0, ge=0.0)
    """What distances of pairs count."""
    angle: float = pydantic.Field(2.0, ge=0.0)
    """What angles of triples count."""

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.distance and not self.angle:
            raise ValueError("relations must compare something: distance or angle must be above 0, found both 0")
        return self


MethodSpec = Annotated[
    SoftSpec
    | PseudoLabelsSpec
    | RegressionSpec
    | RejuvenatedSpec
    | RankSamplingSpec
    | ListwiseSpec
    | FeaturesSpec
    | RelationsSpec,
    pydantic.Field(discriminator="kind"),
]
"""One way of learning from the teacher, chosen by ``kind``, and its weight."""


class DistillationSpec(Frozen):
    """How hard and soft targets are mixed (docs/methods.md).

    The loss is ``alpha * hard + (1 - alpha) * sum of weight * scale * method``; the scale undoes what
    the temperature does to a method's gradient (temperature² for soft labels).
    """

    alpha: Annotated[AlphaSpec, pydantic.BeforeValidator(_constant)]
    """Weight of the hard loss; 1 trains the student alone."""
    temperature: Annotated[TemperatureSpec, pydantic.BeforeValidator(_constant)]
    """Temperature of both sides; one of the store's."""
    methods: tuple[MethodSpec, ...] = (SoftSpec(kind="soft"),)
    """What is learnt from the teacher: at least one, no two of one kind."""
    trust: Literal["everywhere", "where_right", "by_confidence"] = "everywhere"
    """Positions at which the teacher is heard, and how much (`stillhouse.distill.trust`)."""
    right_within: int = pydantic.Field(10, ge=1)
    """For ``where_right``: how far down the teacher's list of unseen items what came next may stand."""
    start: Literal["fresh", "teacher_items"] = "fresh"
    """What a cold student's item table is: drawn, or the teacher's cut to the student's width."""
    finetune: float = pydantic.Field(0.0, ge=0.0, lt=1.0)
    """Last share of the planned steps, in which the student learns from people alone."""
    label_smoothing: float = pydantic.Field(0.0, ge=0.0, lt=1.0)
    """Share of a label that all candidates have alike: a control, for a student alone (``alpha`` 1)."""

    @pydantic.model_validator(mode="after")
    def _kinds_differ(self) -> Self:
        kinds = [method.kind for method in self.methods]
        if not kinds:
            raise ValueError("methods must hold one at least; to hear nothing of the teacher set alpha to 1")
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"methods must be of different kinds, got {', '.join(twice)} more than once")
        if not self.alone and not any(method.weight for method in self.methods):
            raise ValueError(
                "a method must have a weight above 0, found none; to hear nothing of the teacher set alpha to 1"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _smoothed_alone(self) -> Self:
        if self.label_smoothing and not self.alone:
            raise ValueError("label_smoothing is a control for a student alone: it needs alpha 1")
        return self

    @property
    def alone(self) -> bool:
        """Whether the student never hears the teacher."""
        return isinstance(self.alpha, ConstantAlpha) and self.alpha.value == 1.0
