"""Which version a person means: a student's, or where a teacher may be meant, a teacher's."""

from __future__ import annotations

import re
from pathlib import Path

from stillhouse.errors import RegistryError
from stillhouse.lineage.projection import state
from stillhouse.tracking.registry import STUDENT, TEACHER, version_of
from tasks.champion import ledger_entries

__all__ = ["model_and_version", "version_named"]

_NUMBER = re.compile(rf"(?:{STUDENT}[@/:])?v?(\d{{1,9}})")
_TEACHER = re.compile(rf"{TEACHER}[@/:]v?(\d{{1,9}})")
_ALIASES = ("champion", "challenger", "previous", "awaiting")


def version_named(root: Path, name: str) -> int:
    """Return the version that ``name`` means: ``7``, ``student@7``, ``champion``, ``student@previous`` …

    An alias is what the ledger adds up to, whatever the registry's own aliases say.

    Raises:
        RegistryError: nothing of that name, or no such version.
    """
    if number := _NUMBER.fullmatch(name):
        return version_of(root, int(number.group(1))).version
    alias = name.removeprefix(f"{STUDENT}@")
    if alias not in _ALIASES:
        raise RegistryError(f"a version must be named by its number or by one of {', '.join(_ALIASES)}; got {name!r}")
    version = getattr(state(ledger_entries(root)), alias)
    if version is None:
        raise RegistryError(f"there must be a {alias} to speak of it, the ledger has none (stillhouse history)")
    return int(version)


def model_and_version(root: Path, name: str) -> tuple[str, int]:
    """Return the registered model and the version that ``name`` means: ``teacher@3``, or as `version_named` has it.

    Raises:
        RegistryError: nothing of that name, or no such version.
    """
    if number := _TEACHER.fullmatch(name):
        return TEACHER, version_of(root, int(number.group(1)), TEACHER).version
    if name.startswith(TEACHER):
        raise RegistryError(f"a teacher must be named by its number, such as {TEACHER}@3; got {name!r}")
    return STUDENT, version_named(root, name)
