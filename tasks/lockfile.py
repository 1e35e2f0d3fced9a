"""``dvc.lock``, read and written as DVC does and to the same bytes, in a fraction of the time.

DVC parses the whole lock anew for each of its own questions, and to change one stage it takes all of them apart into
objects that remember comments, and writes all of them again: a second and more of processor time for every stage of
a night. Here a text that was parsed is kept, and of a lock only the stages that changed are written.
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

#: Students' stages open the repository beside each other.
_ONCE = threading.Lock()

Parse = Callable[..., Any]
Modify = Callable[..., AbstractContextManager[Any]]


def quicken() -> None:
    """Let DVC, within this process, read and write its lock so; a second call changes nothing."""
    from dvc import dvcfile
    from dvc.utils import strictyaml

    with _ONCE:
        if not hasattr(dvcfile.modify_yaml, "replaces"):
            strictyaml.parse_yaml = _remembering(strictyaml.parse_yaml)
            dvcfile.modify_yaml = _by_stages(dvcfile.modify_yaml)


def _remembering(parse: Parse) -> Parse:
    """Return DVC's ``parse``, which keeps the last texts that it has parsed; each caller gets objects of its own."""

    @lru_cache(maxsize=8)  # the graph, its lock before and after a change, pointers of tracked folders
    def parsed(text: str, path: str) -> bytes:
        return pickle.dumps(parse(text, path, typ="safe"), pickle.HIGHEST_PROTOCOL)

    def remembering(text: str, path: Any, typ: str = "safe") -> Any:
        if typ != "safe":
            return parse(text, path, typ=typ)
        return pickle.loads(parsed(text, str(path)))  # noqa: S301  # what this process has pickled

    return remembering


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
