"""How a stage's settings are read: one frozen model a stage, errors that name the place.

``params.yaml`` holds a section for each stage and a few settings that several
share; ``night.yaml`` holds what belongs to one night (``as_of``, the source).
A stage's model names what it takes beyond its own section in `StageParams.shared`
and `StageParams.night`, and ``dvc.yaml`` lists the same keys: a test holds the
two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pydantic
import yaml

from stillhouse.errors import ParamsError, one_line, unknown_name

__all__ = ["Frozen", "StageParams", "build", "read_yaml", "stage_values"]

M = TypeVar("M", bound=pydantic.BaseModel)


class Frozen(pydantic.BaseModel):
    """A settings model: immutable, strict about unknown names, no NaN."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageParams(Frozen):
    """What one stage reads: its own section and the shared keys that it names."""

    section: ClassVar[str]
    """The stage's own section of params.yaml (the stage's name)."""

    shared: ClassVar[tuple[str, ...]] = ()
    """Top-level keys of params.yaml that the stage reads beside its section."""

    night: ClassVar[tuple[str, ...]] = ()
    """Keys of night.yaml that the stage reads."""

    instances: ClassVar[str | None] = None
    """For a stage run once a student: the params key that holds the instances."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in the YAML file at ``path``.

    Raises:
        ParamsError: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path.name} must exist, found none in {path.parent}: run from a Stillhouse workspace"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(one_line(f"{path.name} must be YAML: {error}")) from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path.name} must hold a mapping of settings, got {type(document).__name__}")
    _refuse_dates(document, path.name)
    return document


def _refuse_dates(value: Any, place: str) -> None:
    """Refuse bare dates, on which DVC's own reader of the file would crash."""
    if isinstance(value, date):
        raise ParamsError(f'a date must be quoted, got {value} ({place}): write "{value}"')
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in pairs:
        _refuse_dates(member, f"{place}: {key}" if ":" not in place else f"{place}.{key}")


def build(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Return ``values`` as a ``model``, or one line that names each bad setting.

    Args:
        model: the settings model.
        values: plain data, as YAML gives it.
        where: file and section for the error, such as ``params.yaml: prepare``.

    Raises:
        ParamsError: a setting is missing, unknown, of the wrong type or out of range.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise ParamsError("; ".join(_explain(model, problem, where) for problem in error.errors())) from None


def _explain(model: type[pydantic.BaseModel], problem: Any, where: str) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    place = f"{where}.{path}" if path else where
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return unknown_name("setting", str(problem["loc"][0]), model.model_fields, where)
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return f"{path} must be set, found nothing ({place})"
    return one_line(f"{path or 'the section'}: {message}, got {problem['input']!r} ({place})")


def stage_values(
    model: type[StageParams], params: Mapping[str, Any], night: Mapping[str, Any], instance: str | None = None
) -> dict[str, Any]:
    """Gather the plain values of one stage from params.yaml and night.yaml.

    Args:
        model: the stage's settings model.
        params: the whole of params.yaml.
        night: the whole of night.yaml (empty where the stage needs nothing of it).
        instance: the student's name, for a stage that runs once a student.

    Raises:
        ParamsError: a section or a key is missing, or there is no such instance.
    """
    values: dict[str, Any] = dict(_section(params, model.section, "params.yaml")) if model.section in params else {}
    for source, keys, name in ((params, model.shared, "params.yaml"), (night, model.night, "night.yaml")):
        for key in keys:
            if key not in source:
                raise ParamsError(f"{key} must be set, found nothing ({name}: {key})")
            values[key] = source[key]
    if model.instances is not None:
        members = _section(params, model.instances, "params.yaml")
        if instance is None or instance not in members:
            raise ParamsError(unknown_name("student", str(instance), members, f"params.yaml: {model.instances}"))
        values["student"] = members[instance]
    return values


def _section(document: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise ParamsError(f"{key} must be a section of settings, got {value!r} ({name}: {key})")
    return value
