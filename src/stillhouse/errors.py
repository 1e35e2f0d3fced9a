"""Every error that Stillhouse expects, in one tree.

::

    StillhouseError            a known error: one line, exit code 2, never retried
    ├── ParamsError            params.yaml, night.yaml or the command line says something impossible
    ├── SourceError            the source of interactions cannot be reached or read
    ├── DataError              the data was read and may not enter
    ├── TrainingError          a model diverged, collapsed or cannot be trained
    ├── StoreError             a soft-target store is damaged or belongs to something else
    ├── PackageError           a package does not match its checkpoint, or cannot be read
    ├── ServingError           a request that no model can answer
    ├── NightError             a night cannot be opened, resumed or closed
    ├── StackError             the servers of one machine cannot be brought up, stopped, backed up or restored
    ├── AlertError             an alert did not reach whom it is for
    └── RegistryError          the registry or the ledger refuses
        └── AlteredError       something kept is not what its hash says

Anything else is a defect: it keeps its traceback and exits with 1.

The text of an error says *what must hold, what was found, where, and what to
do*: ``temperature must be > 0, got 0.0 (params.yaml: train_student.temperature)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

__all__ = [
    "AlertError",
    "AlteredError",
    "DataError",
    "NightError",
    "PackageError",
    "ParamsError",
    "RegistryError",
    "ServingError",
    "SourceError",
    "StackError",
    "StillhouseError",
    "StoreError",
    "TrainingError",
    "by_name",
    "one_line",
    "unknown_name",
]

#: Longest text of an error that reaches a person; longer ones come from pasted values.
_LONGEST = 600


class StillhouseError(Exception):
    """A known error: one line for a person, exit code 2, never retried."""

    exit_code = 2


class ParamsError(StillhouseError):
    """A setting is missing, unknown or impossible."""


class SourceError(StillhouseError):
    """The source of interactions cannot be reached or read."""


class DataError(StillhouseError):
    """The data was read and may not enter the night."""


class TrainingError(StillhouseError):
    """A model diverged, collapsed or cannot be trained on what there is."""


class StoreError(StillhouseError):
    """A soft-target store is damaged, cut off or belongs to another teacher."""


class PackageError(StillhouseError):
    """A package does not match its checkpoint, or cannot be read."""


class ServingError(StillhouseError):
    """A request that no model can answer."""


class NightError(StillhouseError):
    """A night cannot be opened, resumed or closed."""


class AlertError(StillhouseError):
    """An alert did not reach whom it is for, or there is nobody to send it to."""


class StackError(StillhouseError):
    """The servers of one machine cannot be brought up, stopped, backed up or restored."""


class RegistryError(StillhouseError):
    """The registry or the ledger refuses."""


class AlteredError(RegistryError):
    """Something that the registry or the ledger keeps is not what its hash says."""


def one_line(text: str) -> str:
    r"""Return ``text`` on one line, cut to a length that a terminal bears.

    >>> one_line("a\n  b")
    'a b'
    """
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def unknown_name(what: str, name: str, choices: Iterable[str], where: str) -> str:
    """Say that ``name`` is not a known ``what``, with the close matches first.

    >>> unknown_name("model", "grru", ["gru", "transformer"], "params.yaml: students.a.model.kind")
    "model must be one of gru, transformer; got 'grru' (params.yaml: students.a.model.kind); did you mean gru?"
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{what} must be one of {', '.join(known)}; got {name!r} ({where}){hint}"


def by_name(name: str) -> type[StillhouseError]:
    """Return the class called ``name``, or the root where there is none.

    A stage runs in a process of its own; this turns the name that it left
    behind into the class again.

    >>> by_name("DataError") is DataError
    True
    """
    return next((cls for cls in _below(StillhouseError) if cls.__name__ == name), StillhouseError)


def _below(root: type[StillhouseError]) -> Iterator[type[StillhouseError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from _below(cls)
