"""What sections of ``params.yaml`` ask of one another, found before a night is opened and not hours into it."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.errors import ParamsError
from stillhouse.params.distillation import (
    ConstantTemperature,
    FeaturesSpec,
    RampedTemperature,
    RegressionSpec,
    SoftSpec,
    TemperatureSpec,
)
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.model import (
    BidirectionalSpec,
    CrossFittedSpec,
    EnsembleSpec,
    GruSpec,
    TeacherSpec,
    TransformerSpec,
)
from stillhouse.params.train_student import TrainStudentParams

__all__ = ["has_item_table", "require_agreement"]


#: What scores by states and an item table (held against the models by their contract).
_BY_STATES = TransformerSpec | GruSpec | BidirectionalSpec


def require_agreement(
    teacher: TeacherSpec, export: ExportSoftTargetsParams, students: Mapping[str, TrainStudentParams]
) -> None:
    """Refuse what the teacher does not have or the store will not keep.

    Args:
        teacher: what the teacher is.
        export: what the store keeps of it.
        students: name → what the student asks for.

    Raises:
        ParamsError: the store is to keep states of a teacher without any, a student's distillation needs an item
            table, states, draws, a second score or a temperature that there will not be, or a taught student reads
            other windows of a history than the store was scored in.
    """
    if export.hidden and not isinstance(teacher, _BY_STATES):
        raise ParamsError(
            f"export_soft_targets.hidden must be false for a teacher without states, found true and a teacher of kind "
            f"{teacher.kind} (params.yaml: train_teacher.model): set it to false, or train one transformer, gru or "
            "bidirectional"
        )
    for name, student in students.items():
        _require_student(teacher, export, student, name)


def _require_student(
    teacher: TeacherSpec, export: ExportSoftTargetsParams, student: TrainStudentParams, name: str
) -> None:
    own = student.student.distillation is not None
    spec = student.student.distillation or student.distillation
    place = f"students.{name}.distillation" if own else "train_student.distillation"
    if spec.start == "teacher_items" and not has_item_table(teacher):
        raise ParamsError(
            f"start: teacher_items must have a teacher that scores by an item table, found one of kind {teacher.kind} "
            f"(params.yaml: {place}.start): set it to fresh, or train a transformer, gru, bidirectional, one of them "
            "cross-fitted, or an ensemble with one"
        )
    if spec.alone:
        return
    if not export.hidden and any(isinstance(method, FeaturesSpec) for method in spec.methods):
        raise ParamsError(
            f"the method features must find the teacher's states in the store, found export_soft_targets.hidden: false "
            f"(params.yaml: {place}.methods): set it to true, or take another method"
        )
    if export.k < 2 and any(isinstance(method, SoftSpec) and method.standardise for method in spec.methods):
        raise ParamsError(
            f"the method soft must see two scores or more to standardise them, found export_soft_targets.k: {export.k} "
            f"(params.yaml: {place}.methods): raise k, or set standardise to false"
        )
    for method in spec.methods:
        if isinstance(method, RegressionSpec):
            _require_scores(method, export, f"{place}.methods")
    windows = (student.student.training or student.training).windows
    if windows not in ("last", export.windows):
        at = f"students.{name}.training" if student.student.training is not None else "train_student.training"
        raise ParamsError(
            f"windows must be {' or '.join(dict.fromkeys(('last', export.windows)))} for a student that is taught, "
            f"found {windows} (params.yaml: {at}.windows): the teacher is asked about those windows alone "
            f"(export_soft_targets.windows); set it so, or alpha to 1 (params.yaml: {place})"
        )
    heat = _throughout(spec.temperature)
    if heat is not None and heat not in export.temperatures:
        known = ", ".join(f"{value:g}" for value in export.temperatures)
        raise ParamsError(
            f"temperature must be one of export_soft_targets.temperatures ({known}), found {heat:g} "
            f"(params.yaml: {place}.temperature): choose one of them, or add it there"
        )


def _require_scores(method: RegressionSpec, export: ExportSoftTargetsParams, place: str) -> None:
    """Refuse a regression that would have nothing to compare: one score is always the teacher's, up to a constant."""
    if method.draws and not export.tail_samples:
        raise ParamsError(
            "the method regression must find items drawn from the tail in the store, found "
            f"export_soft_targets.tail_samples: 0 (params.yaml: {place}): set draws to false, or draw some"
        )
    if not method.draws and export.k < 2:
        raise ParamsError(
            f"the method regression must see two scores or more, found export_soft_targets.k: {export.k} "
            f"(params.yaml: {place}): raise k, or set draws to true"
        )


def _throughout(temperature: TemperatureSpec) -> float | None:
    """Return the one temperature of a student; ``None``: it changes, and takes the nearest that the store holds."""
    match temperature:
        case ConstantTemperature():
            return temperature.value
        case RampedTemperature() if temperature.start == temperature.end:
            return temperature.start
    return None


def has_item_table(teacher: TeacherSpec) -> bool:
    """Say whether a teacher of this kind scores by an item table."""
    if isinstance(teacher, EnsembleSpec):
        return any(has_item_table(member.model) for member in teacher.members.values())
    if isinstance(teacher, CrossFittedSpec):
        return has_item_table(teacher.model)
    return isinstance(teacher, _BY_STATES)
