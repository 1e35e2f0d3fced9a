"""The whole of ``params.yaml``, checked at once before a night is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from stillhouse.errors import ParamsError
from stillhouse.params.admit import AdmitParams
from stillhouse.params.agreement import require_agreement
from stillhouse.params.alerts import AlertsParams
from stillhouse.params.base import EventWeights, Frozen, StageParams, build, read_yaml, stage_values
from stillhouse.params.check_teacher import CheckTeacherParams
from stillhouse.params.distillation import DistillationSpec
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.gate import GateParams, NightParams
from stillhouse.params.ingest import IngestParams
from stillhouse.params.model import NAME, ComputeSpec
from stillhouse.params.package import PackageParams
from stillhouse.params.prepare import PrepareParams
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_student import StudentSpec, TrainStudentParams
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.params.tune import TuneParams
from stillhouse.params.validate import ValidateParams

__all__ = ["STAGE_PARAMS", "Document", "load_document"]

P = TypeVar("P", bound=StageParams)

#: Stage (or the part before ``@``) → the model of its settings.
STAGE_PARAMS: dict[str, type[StageParams]] = {
    "ingest": IngestParams,
    "validate": ValidateParams,
    "admit": AdmitParams,
    "prepare": PrepareParams,
    "train_teacher": TrainTeacherParams,
    "check_teacher": CheckTeacherParams,
    "export_soft_targets": ExportSoftTargetsParams,
    "train_student": TrainStudentParams,
    "package": PackageParams,
    "evaluate": EvaluateParams,
    "evaluate_champion": EvaluateParams,
}


class Document(Frozen):
    """``params.yaml`` as a whole; a stage's own section is checked by the stage's model."""

    seed: int = pydantic.Field(ge=0, lt=2**63)
    """Of everything that is drawn."""
    repeat_items: bool
    """Whether people take an item again: if not, what they have seen is never recommended or scored."""
    event_weights: EventWeights
    """Event type → weight of its loss: 0 is seen and not learnt from."""
    compute: ComputeSpec
    source: SourceSpec
    night: NightParams
    validate_: dict[str, Any] = pydantic.Field(alias="validate")
    admit: dict[str, Any]
    prepare: dict[str, Any]
    train_teacher: dict[str, Any]
    check_teacher: dict[str, Any]
    export_soft_targets: dict[str, Any]
    train_student: dict[str, Any]
    students: dict[Annotated[str, pydantic.Field(pattern=NAME)], StudentSpec] = pydantic.Field(min_length=1)
    package: dict[str, Any]
    evaluate: dict[str, Any]
    gate: GateParams
    tune: TuneParams = TuneParams()
    alerts: AlertsParams = AlertsParams()

    @pydantic.field_validator("students")
    @classmethod
    def _not_the_teachers(cls, students: dict[str, StudentSpec]) -> dict[str, StudentSpec]:
        if "teacher" in students:
            raise ValueError("a student must not be called teacher, whose files would be its own")
        return students


def load_document(path: Path) -> tuple[Document, dict[str, Any]]:
    """Return ``params.yaml`` checked, and as plain data.

    Raises:
        ParamsError: anything in it is missing, unknown or out of range, in whatever section, or a student asks for
            what its teacher or the store will not have.
    """
    plain = read_yaml(path)
    document = build(Document, plain, path.name)
    for stage, model in STAGE_PARAMS.items():
        if model is IngestParams:
            continue
        for instance in plain["students"] if model.instances else (None,):
            _part(model, plain, f"{path.name}: {stage}", instance)
    teacher = _part(TrainTeacherParams, plain, path.name).model
    export = _part(ExportSoftTargetsParams, plain, path.name)
    students = {name: _part(TrainStudentParams, plain, path.name, name) for name in plain["students"]}
    _require_whole(plain, students, path.name)
    require_agreement(teacher, export, students)
    return document, plain


def _part(model: type[P], plain: dict[str, Any], where: str, instance: str | None = None) -> P:
    return build(model, stage_values(model, plain, _any_night(model), instance), where)


def _require_whole(plain: dict[str, Any], students: Mapping[str, TrainStudentParams], where: str) -> None:
    """Refuse a section of a student's or a member's own that leaves out what the common one sets.

    It stands in that one's place: what it leaves out would be what nobody wrote down. Of a distillation this is about
    settings that the common one sets to other than what they are by themselves; a student alone hears none of them.

    Raises:
        ParamsError: a setting is left out.
    """
    members = plain["train_teacher"]["model"].get("members") or {}
    common = plain["train_student"]
    for name, one in members.items():
        place = f"train_teacher.model.members.{name}.training"
        _require_keys(one, place, "train_teacher.training", plain["train_teacher"]["training"], where)
    for name, params in students.items():
        one, own = plain["students"][name], params.student.distillation
        _require_keys(one, f"students.{name}.training", "train_student.training", common["training"], where)
        if own is not None and not own.alone:
            matters = [key for key in common["distillation"] if _differs(params.distillation, key)]
            _require_keys(one, f"students.{name}.distillation", "train_student.distillation", matters, where)


def _differs(spec: DistillationSpec, key: str) -> bool:
    """Say whether a setting is other than what it is where it is left out."""
    return bool(getattr(spec, key) != DistillationSpec.model_fields[key].default)


def _require_keys(owner: Mapping[str, Any], place: str, common: str, keys: Iterable[str], where: str) -> None:
    own = owner.get(place.rpartition(".")[2])
    if own is not None and (missing := [key for key in keys if key not in own]):
        raise ParamsError(
            f"{place} stands in place of {common} and must set what that one sets, found no {', '.join(missing)} "
            f"({where}: {place})"
        )


def _any_night(model: type[StageParams]) -> Mapping[str, Any]:
    return {"as_of": datetime(2000, 1, 1, tzinfo=UTC)} if model.night else {}
