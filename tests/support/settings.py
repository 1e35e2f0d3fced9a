"""Every setting there is, and how one of them is changed: what the contract about settings is written in."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic


@dataclass(frozen=True)
class Case:
    """How a setting is shown to change something."""

    value: Any
    """What it is set to, in place of what the stage's baseline has."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the baseline must have, so that this one can matter."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What the stage takes in place of the baseline's inputs, so that this one can matter: argument → run."""
    along: Mapping[str, Any] = field(default_factory=dict)
    """Settings that must change with it for the whole to be valid; ``DROP`` takes one out."""
    refused: type[Exception] | None = None
    """The known error with which the stage refuses the other value."""


DROP = object()


def leaves(model, prefix=""):
    """Give the dotted name of every setting of ``model``; of several models in one place, ``name[kind].setting``."""
    for name, info in model.model_fields.items():
        models = [one for one in _members(info.annotation) if _is_model(one)]
        if not models or (len(models) > 1 and "[" in prefix):
            yield prefix + name  # a union within one of a union: its settings have their cases where it stands first
            continue
        for one in models:
            kind = f"[{kind_of(one)}]" if len(models) > 1 else ""
            yield from leaves(one, f"{prefix}{name}{kind}.")


def _is_model(annotation):
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def kind_of(model):
    """Return the value of ``kind`` that stands for ``model`` in a union."""
    return get_args(model.model_fields["kind"].annotation)[0]


def _members(annotation):
    if get_origin(annotation) in (Union, UnionType):
        return [member for one in get_args(annotation) for member in _members(one)]
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return [annotation]


def before_and_after(base, setting, case, models):
    """Return the baseline's plain settings with what ``case`` needs, and the same with ``setting`` changed.

    Args:
        base: the stage's plain settings.
        setting: as `leaves` gives it.
        case: how it is changed.
        models: kind → plain settings of a small model; one stands where ``setting`` names a kind.
    """
    kinds = {place: models[kind] for place, kind in re.findall(r"^(.*)\[(\w+)\]", setting)}
    before = _with(base, {**kinds, **case.given})
    return before, _with(before, {re.sub(r"\[\w+\]", "", setting): case.value, **case.along})


def _with(values, changes):
    changed = copy.deepcopy(values)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        section = changed
        for key in parents:
            section = section[key]
        if value is DROP:
            del section[last]
        else:
            section[last] = copy.deepcopy(value)
    return changed
