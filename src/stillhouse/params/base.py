"""How a stage's settings are read: one frozen model a stage, errors that name the place.

``params.yaml`` holds a section for each stage and a few settings that several
share; ``night.yaml`` holds what belongs to one night (``as_of``, the source).
A stage's model names what it takes beyond its own section in `StageParams.shared`
and `StageParams.night`, and ``dvc.yaml`` lists the same keys: a test holds the
two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote

import pydantic
import yaml

from stillhouse.errors import ParamsError, one_line, unknown_name

__all__ = [
    "NOT_SHOWN",
    "EventWeights",
    "Frozen",
    "StageParams",
    "build",
    "holds_secret",
    "read_yaml",
    "redacted",
    "stage_values",
]

M = TypeVar("M", bound=pydantic.BaseModel)

EventWeights = dict[str, Annotated[float, pydantic.Field(ge=0.0, allow_inf_nan=False)]]
"""Event type → weight of its loss: 0 is seen and not learnt from; less would reward what is wrong."""

#: The setting by which the members of every union are told apart.
_TAG = "kind"
#: Type of a validator's error about a value that no message may show; its context may hold ``advice``.
NOT_SHOWN = "not_shown"

#: Type of pydantic's error about a value of another type → what the value must be; ``None``: as the error says.
_WANTED = {
    "model_type": "a section of settings",
    "model_attributes_type": "a section of settings",
    "dict_type": "a section of settings",
    "list_type": "a list",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "literal_error": None,
}
#: Unknown settings of one section that are each said in full.
_APART = 2

_SECRET_NAME = re.compile(r"passw(?:or)?d|passphrase|pwd|secret|token|credential|access_?key|api_?key|\bpass\b", re.I)
_SECRET_PAIR = re.compile(rf"(?:{_SECRET_NAME.pattern})\w*\s*=\s*[^\s&;]", re.I)
#: ``user:password@`` after ``://``, as SQLAlchemy parts a URL (a ``/`` may stand in the password) and as people
#: mistake it (a ``/`` in the user), or at the start of a text without ``://``.
_USERINFO = re.compile(r"(?s)://(?:[^:/]*|(?!/)[^?]*):.+@|^(?![\w+.-]*://)[^:/]*:.+@")


class Frozen(pydantic.BaseModel):
    """A settings model: immutable, strict about unknown names, no NaN; pydantic's own errors show no values."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def holds_secret(text: str) -> bool:
    """Say whether there is a password (or a token) in a URL, percent-encoded or not.

    >>> [holds_secret(url) for url in ("postgresql://me@host/shop", "postgresql://me:pw@host/shop")]
    [False, True]
    >>> holds_secret("postgresql://host/shop?sslp%61ssword=pw")
    True
    """
    authority = re.split("[/?#]", text.partition("://")[2])[0]
    found = _USERINFO.search(text) or _USERINFO.search(f"://{_decoded(authority)}")
    return bool(found or _SECRET_PAIR.search(_decoded(text)))


def redacted(text: str) -> str:
    """Return ``text`` as a person may see it: of one that holds a password, the scheme alone.

    >>> redacted("postgresql://me:pw@host/shop")
    'postgresql://***'
    >>> redacted("sqlite:///shop.db")
    'sqlite:///shop.db'
    """
    if not holds_secret(text):
        return text
    scheme = re.match(r"[\w+.-]+://", text)
    return f"{scheme[0] if scheme else ''}***"


def _decoded(text: str) -> str:
    for _ in range(3):  # a connection string inside a URL is often encoded twice
        text = unquote(text)
    return text


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
    except yaml.MarkedYAMLError as error:  # its text holds the line that it is about, and with it what stands there
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else "somewhere"
        said = redacted(error.problem or error.context or "it cannot be read")
        raise ParamsError(one_line(f"{path.name} must be YAML: {said} ({path.name}: {line})")) from None
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
        ParamsError: a setting is missing, unknown, of the wrong type or out of range. The line holds no password.
    """
    if wrong := [
        f"{'.'.join(parts)} must be a number, got {value} ({_place(where, parts)})"
        for parts, value in _yes(model, values)
    ]:
        raise ParamsError("; ".join(wrong))
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise ParamsError("; ".join(_clauses(model, _first(error.errors()), where))) from None


def _yes(annotation: Any, value: Any, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Find ``true`` and ``false`` that stand for a number, which pydantic reads as 1 and 0 (YAML reads ``yes`` so)."""
    annotation = _bare(annotation)
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if isinstance(value, bool):
        kinds = {_bare(member) for member in members}
        if kinds & {int, float} and bool not in kinds:
            yield parts, value
    elif isinstance(value, Mapping):
        of = next((member for member in members if str(value.get(_TAG)) in _tags(member)), annotation)
        for key, member in value.items():
            yield from _yes(_inside(of, key), member, (*parts, str(key)))
    elif isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from _yes(_inside(annotation, number), member, (*parts, str(number)))


def _first(problems: list[Any]) -> list[Any]:
    """Leave out that a list is too short where that follows from a member which is wrong itself."""
    return [
        one
        for one in problems
        if one["type"] != "too_short"
        or not any(
            len(each["loc"]) > len(one["loc"]) and each["loc"][: len(one["loc"])] == one["loc"] for each in problems
        )
    ]


def _clauses(model: type[pydantic.BaseModel], problems: list[Any], where: str) -> Iterator[str]:
    """Give a clause a problem; one for a section that is full of unknown settings, one for a value of several types."""
    unknown: dict[tuple[int | str, ...], list[str]] = {}
    tried: dict[tuple[str, ...], list[Any]] = {}
    for one in problems:
        if one["type"] == "extra_forbidden":
            unknown.setdefault(one["loc"][:-1], []).append(redacted(str(one["loc"][-1])))
        elif one["type"] in _WANTED:
            tried.setdefault(tuple(_follow(model, one["loc"])[0]), []).append(one)
    for one in problems:
        if one["type"] == "extra_forbidden":
            names = unknown[one["loc"][:-1]]
            if len(names) <= _APART or redacted(str(one["loc"][-1])) == names[0]:
                rest = f"; nor does it know {', '.join(names[1:])}" if len(names) > _APART else ""
                yield _unknown_setting(model, one["loc"], where) + rest
        elif one["type"] in _WANTED:
            parts = tuple(_follow(model, one["loc"])[0])
            if (same := tried.pop(parts, None)) is not None:
                yield _explain(model, one, where) if len(same) == 1 else _wanted(parts, same, where)
        else:
            yield _explain(model, one, where)


def _wanted(parts: tuple[str, ...], problems: list[Any], where: str) -> str:
    """Say what would do of the several types that a setting may have."""
    said = [_WANTED[one["type"]] or one["ctx"]["expected"].replace("'", "").replace(" or ", ", ") for one in problems]
    name, place = ".".join(parts), _place(where, parts)
    return one_line(f"{name} must be {' or '.join(said)}, got {_shown(problems[0]['input'])} ({place})")


def _explain(model: type[pydantic.BaseModel], problem: Any, where: str) -> str:
    kind, found = problem["type"], problem["input"]
    context = problem.get("ctx", {})
    parts, annotation = _follow(model, problem["loc"])
    path, place = ".".join(parts), _place(where, parts)
    if parts[-1:] == ["[key]"]:
        name, path = parts[-2], ".".join(parts[:-2])
        rule = context.get("pattern", problem["msg"])
        return one_line(f"a name in {path} must match {rule}, got {_shown(name)} ({_place(where, parts[:-2])})")
    if kind == "missing":
        return f"{path} must be set, found nothing ({place})"
    if kind == NOT_SHOWN:
        advice = f": {context['advice']}" if "advice" in context else ""
        return f"{path} {problem['msg']} ({place}){advice}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name, choices = context["discriminator"].strip("'"), sorted(_tags(annotation))
        place = _place(where, [*parts, name])
        if kind == "union_tag_invalid":
            return unknown_name(_called(parts), redacted(context["tag"]), choices, place)
        return f"{path}.{name} must be one of {', '.join(choices)}; found nothing ({place})"
    choices = re.findall("'([^']*)'", context["expected"]) if kind == "literal_error" else []
    if choices and isinstance(found, str):
        return one_line(unknown_name(_called(parts), redacted(found), choices, place))
    path = path or "the section"
    if kind == "value_error" and isinstance(found, Mapping | list):  # of several settings together, which it names
        return one_line(f"{path}: {context['error']} ({place})")
    if _WANTED.get(kind):
        return one_line(f"{path} must be {_WANTED[kind]}, got {_shown(found)} ({place})")
    message = problem["msg"].removeprefix("Value error, ")
    return one_line(f"{path}: {message[0].lower()}{message[1:]}, got {_shown(found)} ({place})")


def _called(parts: list[str]) -> str:
    """Return what a setting is called by itself: one of a list by the list's name and its number."""
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _unknown_setting(model: type[pydantic.BaseModel], loc: tuple[int | str, ...], where: str) -> str:
    parts, inside = _follow(model, loc[:-1])
    name, place = redacted(str(loc[-1])), _place(where, parts)
    if not _is_model(inside):
        return f"{name} is no setting here ({place})"
    elsewhere = _elsewhere(inside) if issubclass(inside, StageParams) else {}
    known = [field.alias or each for each, field in inside.model_fields.items() if each not in elsewhere]
    return unknown_name("setting", name, known, place)


def _place(where: str, parts: Iterable[str]) -> str:
    """Join a file (and section) and the path in it: ``params.yaml: gate.margin``."""
    path = ".".join(parts)
    return f"{where}{'.' if ': ' in where else ': '}{path}" if path else where


def _follow(annotation: Any, loc: Iterable[int | str]) -> tuple[list[str], Any]:
    """Return pydantic's ``loc`` as the file has it, and the type of what stands there (None: not known).

    Of a union, ``loc`` names the member that was tried; the file knows nothing of it.
    """
    parts: list[str] = []
    for part in loc:
        annotation = _bare(annotation)
        if get_origin(annotation) in (Union, UnionType):
            annotation = next((member for member in get_args(annotation) if part in _tags(member)), None)
            continue
        parts.append(str(part))
        annotation = _inside(annotation, part)
    return parts, _bare(annotation)


def _bare(annotation: Any) -> Any:
    """Take ``Annotated`` and ``| None`` off a type."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _inside(annotation: Any, part: int | str) -> Any:
    if _is_model(annotation):
        fields = annotation.model_fields.items()
        return next((field.annotation for name, field in fields if part in (name, field.alias)), None)
    arguments = get_args(annotation)
    return arguments[1 if get_origin(annotation) is dict else 0] if arguments else None


def _tags(annotation: Any) -> set[str]:
    """Return the words that tell a model, or the members of a union, from others: the values of its ``kind``."""
    members = [member for member in (annotation, *get_args(annotation)) if _is_model(member)]
    kinds = [member.model_fields[_TAG].annotation for member in members if _TAG in member.model_fields]
    return {str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _shown(value: Any) -> str:
    """Return plain data as Python writes it, without what is secret in it."""
    return repr(_without_secrets(value))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {
            _without_secrets(key): "***" if _SECRET_NAME.search(str(key)) else _without_secrets(member)
            for key, member in value.items()
        }
    return [_without_secrets(member) for member in value] if isinstance(value, list) else value


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
    for key, place in _elsewhere(model).items():
        if key in values:  # it would be overwritten without a word
            raise ParamsError(
                f"{key} must stand {place}, found it in {model.section} (params.yaml: {model.section}.{key})"
            )
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


def _elsewhere(model: type[StageParams]) -> dict[str, str]:
    """Return what a stage takes from beyond its own section → where that stands."""
    found = dict.fromkeys(model.shared, "at the top of params.yaml")
    found |= dict.fromkeys(model.night, "in night.yaml, which is written for each night")
    return found | ({} if model.instances is None else {"student": f"in the section {model.instances}, under its name"})


def _section(document: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise ParamsError(f"{key} must be a section of settings, got {_shown(value)} ({name}: {key})")
    return value
