"""``dvc.lock``, read and written as DVC does and to the same bytes, in a fraction of the time.

DVC parses the whole lock anew for each of its own questions, and to change one stage it takes all of them apart into
objects that remember comments, and writes all of them again: a second and more of processor time for every stage of
a night. Here what was parsed is kept, and of a lock only the stages that changed are parsed and written.
"""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.data.files import write_bytes
from tasks.versions import LOCK

__all__ = ["quicken"]

_HEAD = "schema: '2.0'\nstages:\n"
#: Where the entry of a stage begins: nothing else of a lock is indented by two.
_ENTRY = re.compile(r"^(?=  [^ ])", re.MULTILINE)

#: A line that is of no entry: a lock that has one is not taken apart.
_OUTSIDE = re.compile(r"^(?!  |$)", re.MULTILINE)

#: Students' stages open the repository beside each other.
_ONCE = threading.Lock()

Parse = Callable[..., Any]
Modify = Callable[..., AbstractContextManager[Any]]


def quicken() -> None:
    """Let DVC, within this process, read and write its lock so; a second call changes nothing."""
    from dvc import dvcfile
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml

    with _ONCE:
        if not hasattr(dvcfile.modify_yaml, "replaces"):
            # Of the graph, its lock and pointers; and of params.yaml, which each stage's resolver reads anew.
            strictyaml.parse_yaml = _yaml.parse_yaml = _remembering(strictyaml.parse_yaml)
            dvcfile.modify_yaml = _by_stages(dvcfile.modify_yaml)


def _remembering(parse: Parse) -> Parse:
    """Return DVC's ``parse``, which keeps what it has read, of a lock each stage; callers get objects of their own."""

    @lru_cache(maxsize=8)  # the graph, params.yaml, the lock before and after a change, pointers of tracked folders
    def parsed(text: str, path: str) -> bytes:
        found = _by_entries(text, stage)
        return _pickled(parse(text, path, typ="safe") if found is None else found)

    @lru_cache(maxsize=1024)
    def stage(entry: str) -> bytes:
        return _pickled(parse(f"stages:\n{entry}", LOCK, typ="safe"))

    def remembering(text: str, path: Any, typ: str = "safe") -> Any:
        if typ != "safe":
            return parse(text, path, typ=typ)
        return _unpickled(parsed(text, str(path)))

    return remembering


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _unpickled(value: bytes) -> Any:
    return pickle.loads(value)  # noqa: S301  # what this process has pickled


def _by_entries(text: str, stage: Callable[[str], bytes]) -> dict[str, Any] | None:
    """Return what the lock ``text`` says, put together from its entries, or ``None`` where it must be read as a whole.

    Args:
        text: any YAML.
        stage: entry → what ``stages`` with that entry alone says.
    """
    from dvc.utils.serialize import YAMLFileCorruptedError

    first, *entries = _ENTRY.split(text.removeprefix(_HEAD))
    if not text.startswith(_HEAD) or first or not entries or _OUTSIDE.search(text, len(_HEAD)):
        return None
    found: dict[str, Any] = {}
    for entry in entries:
        try:
            told = _unpickled(stage(entry))["stages"]
        except YAMLFileCorruptedError:  # such as one that refers to another: DVC says what is wrong, if anything is
            return None
        if not isinstance(told, dict) or not found.keys().isdisjoint(told):
            return None
        found |= told
    return {"schema": "2.0", "stages": found}


def _by_stages(modify: Modify) -> Modify:
    """Return DVC's ``modify``, which of a lock writes the stages that changed, and the file whole or not at all."""

    @contextmanager
    def by_stages(path: Any, fs: Any = None) -> Iterator[Any]:
        file = Path(path)
        if file.name != LOCK:
            with modify(path, fs=fs) as data:
                yield data
            return
        text = _read(file)
        data, before = _load(text, path), _load(text, path)
        held = dict(data.get("stages") or {})
        yield data
        write_bytes(file, _changed(text, before, held, data).encode("utf-8"))

    by_stages.replaces = modify  # type: ignore[attr-defined]
    return by_stages


def _read(file: Path) -> str:
    from dvc.utils.serialize import EncodingError

    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise EncodingError(file, "utf-8") from error


def _load(text: str, path: Any) -> Any:
    from dvc.utils import strictyaml

    return strictyaml.parse_yaml(text, path)


def _changed(text: str, before: Any, held: dict[str, Any], data: Any) -> str:
    """Return the lock of ``data`` as DVC writes it.

    Args:
        text: the lock that was read.
        before: what it says.
        held: its stages as they were handed out, whose objects are those of ``data`` where nobody replaced them.
        data: what it is to say.
    """
    entries = _ENTRY.split(text.removeprefix(_HEAD))[1:] if text.startswith(_HEAD) else []
    known = before.get("stages") or {}
    plain = list(data) == ["schema", "stages"] and data["schema"] == "2.0"
    if not plain or not data["stages"] or [_named(entry) for entry in entries] != list(known):
        return _dumped(data)
    written = dict(zip(known, entries, strict=True))
    for name, entry in data["stages"].items():
        if entry is not held.get(name) or entry != known[name]:
            written[name] = _dumped({"stages": {name: entry}}).removeprefix("stages:\n")
    return _HEAD + "".join(written[name] for name in data["stages"])


def _named(entry: str) -> str:
    return entry[2 : entry.index(":")]


def _dumped(data: Any) -> str:
    from dvc.utils.serialize import dumps_yaml

    return str(dumps_yaml(data))
