"""Which class a ``kind`` of method or schedule in params.yaml stands for."""

from __future__ import annotations

from stillhouse.distill.features import Features
from stillhouse.distill.listwise import Listwise
from stillhouse.distill.method import Method, StateMethod, WeightedMethod
from stillhouse.distill.mixed import Listening
from stillhouse.distill.pseudo_labels import PseudoLabels
from stillhouse.distill.rank_sampling import RankSampling
from stillhouse.distill.regression import Regression
from stillhouse.distill.rejuvenated import Rejuvenated
from stillhouse.distill.relations import Relations
from stillhouse.distill.schedules import ByConfidence, Curve, NearConfidence
from stillhouse.distill.soft import Soft
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.store_format import StoreHeader
from stillhouse.errors import StoreError
from stillhouse.params.distillation import (
    AdaptiveAlpha,
    AdaptiveTemperature,
    AlphaSpec,
    ConstantAlpha,
    ConstantTemperature,
    DistillationSpec,
    FeaturesSpec,
    ListwiseSpec,
    MethodSpec,
    PseudoLabelsSpec,
    RampedAlpha,
    RampedTemperature,
    RankSamplingSpec,
    RegressionSpec,
    RejuvenatedSpec,
    RelationsSpec,
    SoftSpec,
    TemperatureSpec,
)

__all__ = ["alpha_of", "listening_of", "methods_of", "temperature_of"]


def methods_of(spec: DistillationSpec, store: SoftTargets, width: int, seed: int = 0) -> list[WeightedMethod]:
    """Return the methods of ``spec`` with their weights.

    Args:
        spec: what is mixed.
        store: what the teacher said.
        width: of the student's states.
        seed: what a method's own first weights are drawn from; torch's own generator is left as it was.

    Raises:
        StoreError: a method needs what the store does not hold.
    """
    return [WeightedMethod(_method(each, store, width, seed), each.weight) for each in spec.methods]


def alpha_of(spec: AlphaSpec) -> Curve | ByConfidence:
    """Return the schedule of the hard loss's weight."""
    match spec:
        case ConstantAlpha():
            return Curve.constant(spec.value)
        case RampedAlpha():
            return Curve(spec.start, spec.end, spec.until, spec.kind)
        case AdaptiveAlpha():
            return ByConfidence(spec.sure, spec.unsure)


def temperature_of(spec: TemperatureSpec) -> Curve | NearConfidence:
    """Return the schedule of the temperature."""
    match spec:
        case ConstantTemperature():
            return Curve.constant(spec.value)
        case RampedTemperature():
            return Curve(spec.start, spec.end, spec.until, spec.kind)
        case AdaptiveTemperature():
            return NearConfidence(spec.target)


def listening_of(spec: DistillationSpec) -> Listening:
    """Return where and when the teacher is listened to."""
    return Listening(trust=spec.trust, right_within=spec.right_within, finetune=spec.finetune)


def _method(spec: MethodSpec, store: SoftTargets, width: int, seed: int) -> Method | StateMethod:
    match spec:
        case SoftSpec():
            return Soft(standardise=spec.standardise)
        case PseudoLabelsSpec():
            return PseudoLabels(spec.k, spec.decay)
        case RegressionSpec():
            return Regression(draws=spec.draws, standardise=spec.standardise)
        case RejuvenatedSpec():
            k = min(spec.k, store.header.k)
            return Rejuvenated(k, beta=spec.beta, decay=spec.decay)
        case RankSamplingSpec():
            return RankSampling(samples=spec.samples, decay=spec.decay, spread=spec.spread, shift=spec.shift)
        case ListwiseSpec():
            return Listwise(samples=spec.samples, decay=spec.decay)
        case FeaturesSpec():
            return Features(width, _hidden_width(store.header), cosine=spec.cosine, seed=seed)
        case RelationsSpec():
            return Relations(positions=spec.positions, distance=spec.distance, angle=spec.angle)


def _hidden_width(header: StoreHeader) -> int:
    """Return the width of the teacher's states that the store holds.

    Raises:
        StoreError: it holds none.
    """
    if not header.hidden_width:
        raise StoreError(
            "the soft-target store must hold the teacher's states for the method features, found none (params.yaml: "
            "export_soft_targets.hidden): set it to true and run a night, or take another method"
        )
    return header.hidden_width
