"""A change of settings as a patch for a person to accept: the rest of params.yaml stays to the letter.

The text is changed where a setting stands, by the places that YAML's parser
gives; nothing is written out anew, so comments, order and layout stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from stillhouse.errors import ParamsError
from stillhouse.tuning.space import Place, with_values

__all__ = ["patched", "unified"]

#: YAML as it stands in one line of a file.
_WIDE = 1_000_000


def patched(text: str, student: str, settings: Mapping[str, Any], changes: Mapping[Place, float]) -> str:
    """Return ``params.yaml`` with a student's settings changed.

    A section that the student has not of its own (it stands in place of the common one, as a whole) is added to it.

    Args:
        text: the file as it is.
        student: whose settings.
        settings: section (``training``, ``distillation``) → what is in force for the student today, plain.
        changes: place of a setting → its new value.

    Raises:
        ParamsError: the file says it in a way that cannot be changed in place, such as through an anchor.
    """
    plain = yaml.safe_load(text)
    own, wanted = dict(plain["students"][student]), with_values(settings, changes)
    plain["students"] = {**plain["students"], student: own}  # copies: another name may stand for the same mapping
    sections = [section for section in wanted if any(place[0] == section for place in changes)]
    result = text
    for section in sections:
        if own.get(section) is None:
            result = _set(result, ("students", student, section), wanted[section])
        else:
            for place, value in changes.items():
                if place[0] == section:
                    result = _set(result, ("students", student, *place), value)
        own[section] = wanted[section]
    if _read(result) != plain:
        told = ", ".join(f"{'.'.join(map(str, place))} = {value:g}" for place, value in changes.items())
        raise ParamsError(
            f"a patch must change nothing but students.{student}, found settings that it cannot change in place, such "
            f"as an anchor (params.yaml: students.{student}): set by hand: {told}"
        )
    return result


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def unified(before: str, after: str, name: str, about: str = "") -> str:
    """Return the change of the file ``name`` as ``git apply`` and ``patch -p1`` take it, after the lines ``about``."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    whole = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return f"{about}\n" * bool(about) + "".join(whole)


def _set(text: str, path: Place, value: Any) -> str:
    """Put ``value`` where ``path`` leads, in place of what stands there or as a new last key of its parent."""
    *parents, last = path
    parent = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in parents:
        parent = _member(parent, key)
    node = _member(parent, last)
    if isinstance(node, ScalarNode):
        return text[: node.start_mark.index] + _line(value) + text[node.end_mark.index :]
    if node is None and isinstance(parent, MappingNode) and parent.value:
        return _add(text, parent, f"{last}: {_line(value)}")
    return text


def _member(node: Node | None, key: str | int) -> Node | None:
    if isinstance(node, SequenceNode) and isinstance(key, int):
        found: Node = node.value[key]
        return found
    if isinstance(node, MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    return None


def _add(text: str, mapping: MappingNode, entry: str) -> str:
    """Add ``entry`` behind the last of ``mapping``, which has one."""
    first, last = mapping.value[0][0], mapping.value[-1][1]
    if mapping.flow_style:
        return f"{text[: last.end_mark.index]}, {entry}{text[last.end_mark.index :]}"
    lines = text.splitlines(keepends=True)
    line = _last_line(last)
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    if not lines[line].endswith(end):
        lines[line] += end
    return "".join([*lines[: line + 1], f"{' ' * first.start_mark.column}{entry}{end}", *lines[line + 1 :]])


def _last_line(node: Node) -> int:
    """Return the line that ``node`` ends on; a block's own mark stands behind the comments that follow it."""
    if isinstance(node, SequenceNode | MappingNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(node, MappingNode) else last)
    line: int = node.end_mark.line
    return line


def _line(value: Any) -> str:
    """Return ``value`` as YAML in one line."""
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=_WIDE).strip()[1:-1]
