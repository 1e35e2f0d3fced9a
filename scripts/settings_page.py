"""Write docs/settings.md: every setting of params.yaml, as the code reads it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
import yaml

from stillhouse.params.base import StageParams
from stillhouse.params.distillation import ConstantAlpha, ConstantTemperature
from stillhouse.params.document import STAGE_PARAMS, Document
from stillhouse.params.source import SourceSpec
from stillhouse.runner.closure import package_root

PAGE = package_root().parent / "docs" / "settings.md"
_HEAD = """# Every setting

What `params.yaml` may hold, as the code reads it: `scripts/settings_page.py` writes this page, and a test holds the two
together. *Default* is what holds where a setting is left out; – means that it must be set. Of a section that may be of
several kinds there is a table for each `kind`. What ships, and why, stands in `params.yaml` itself.
"""
#: Attribute of a rule → how its bound is written.
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_PLAIN: dict[Any, str] = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text"}
_Model = type[pydantic.BaseModel]


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_sections(Document, "", {})])


def _sections(model: _Model, place: str, told: dict[_Model, str]) -> Iterator[str]:
    """Give the table of ``model`` at ``place``, then those of the sections in it; ``told``: of which there is one."""
    rows, below = ["| setting | value | default | what it is |", "|---|---|---|---|"], []
    for name, field in model.model_fields.items():
        called = field.alias or name
        if (called == "kind" and _kind(model)) or called in _elsewhere(model):
            continue
        inner = list(_models(field.annotation))
        if model is Document and (stage := _stage(called)):
            inner = [stage]
        below += [(one, f"{place}.{called}{_kind(one)}".lstrip(".")) for one in inner]
        default = "–" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        if model is Document and inner:
            continue  # a section, which has a table of its own
        value = _value(field.annotation, [*field.metadata], _there(inner, f"{place}.{called}".lstrip("."), told))
        rows.append(f"| `{called}` | {value} | {default} | {_said(model, name)} |")
    if len(rows) > 2:
        head = f"## `{place}`\n{_plain(inspect.getdoc(model) or '')}\n" if place else "## At the top"
        yield "\n".join([head, *rows]) + "\n"
    fresh = {one: inside for one, inside in below if one not in told}
    told |= fresh
    for one, inside in fresh.items():
        yield from _sections(one, inside, told)


def _elsewhere(model: _Model) -> set[str]:
    """Return what a stage takes from beyond its own section."""
    if not issubclass(model, StageParams):
        return set()
    return {*model.shared, *model.night, *(() if model.instances is None else ("student",))}


def _stage(section: str) -> _Model | None:
    return next((model for model in STAGE_PARAMS.values() if model.section == section), None)


def _models(annotation: Any) -> Iterator[_Model]:
    """Give the settings models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _kind(model: _Model) -> str:
    """Return `` (kind)`` of one of several."""
    field = model.model_fields.get("kind")
    kinds = get_args(field.annotation) if field is not None and model is not SourceSpec else ()
    return f" ({', '.join(kinds)})" if kinds else ""


def _there(models: list[_Model], place: str, told: dict[_Model, str]) -> str:
    """Return ``, as `PLACE` `` where all of ``models`` have their tables elsewhere."""
    at = {re.sub(r" \([^)]*\)", "", told[one]) for one in models if one in told}
    return f", as `{at.pop()}`" if len(at) == 1 and all(one in told for one in models) and place not in at else ""


def _value(annotation: Any, metadata: list[Any], there: str) -> str:
    """Say what a value may be: its type, its bounds."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value(inner[0], [*metadata, *inner[1:]], there)
    if origin in (Union, UnionType):
        members = [member for member in inner if member is not NoneType]
        models = [one for member in members for one in _models(member)]
        said = [*(["number"] if ConstantAlpha in models or ConstantTemperature in models else [])]
        said += [f"a section{there}"] if models else []
        said += [_value(member, metadata, there) for member in members if not list(_models(member))]
        return " or ".join(dict.fromkeys([*said, *(["`null`"] if NoneType in inner else [])]))
    if list(_models(annotation)):
        return {"dict": "sections by name", "tuple": "a list of sections"}.get(
            str(getattr(origin, "__name__", "")), "a section"
        ) + there
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is tuple:
        return f"list of {_value(inner[0], [], there)}"
    if origin is dict:
        return f"name → {_value(inner[1], [], there)}"
    flat = [rule for one in metadata for rule in getattr(one, "metadata", [one])]
    bounds = [
        f"{sign} {_number(getattr(rule, key))}" for key, sign in _BOUNDS.items() for rule in flat if hasattr(rule, key)
    ]
    return " ".join([_PLAIN.get(annotation, "text"), ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    """Return a default as YAML has it."""
    plain = value.model_dump() if isinstance(value, pydantic.BaseModel) else value
    if isinstance(plain, tuple):
        plain = [member.model_dump() if isinstance(member, pydantic.BaseModel) else member for member in plain]
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"


def _said(model: _Model, name: str) -> str:
    """Return the text that stands below the field ``name`` in the source of ``model`` or of what it inherits from."""
    for owner in model.__mro__:
        if name in vars(owner).get("__annotations__", {}):
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, after in zip(body.body, [*body.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name:
                    told = after.value if isinstance(after, ast.Expr) else None
                    return _plain(told.value) if isinstance(told, ast.Constant) else ""
    return ""


def _plain(text: Any) -> str:
    """Return the first paragraph of a docstring on one line of Markdown."""
    words = " ".join(inspect.cleandoc(str(text)).split("\n\n")[0].split())
    return words.replace("``", "`").replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
