"""Where the ledger's entries lie: the registry's model ``student-ledger``, one version an entry.

The registry hands out the numbers, so two writers never hold the same one. An
entry names its predecessor's hash; which entries count is the ledger's own rule
(`stillhouse.lineage.ledger`) and is handed in, for storage knows no rules. A
writer that finds its entry void has lost against another and composes again.
Nothing here changes or deletes an entry.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import RegistryError
from stillhouse.tracking.store import Store, connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["LEDGER", "Stored", "append", "read"]

#: The registered model whose versions are the ledger's entries.
LEDGER = "student-ledger"

_SOURCE = "stillhouse:/ledger"  # a version must have a source, absolute for a server; an entry has no files
_CHUNK = 4000  # some databases hold tags of 5,000 characters
_ATTEMPTS = 200
_PAGE = 1000


@dataclass(frozen=True)
class Stored:
    """One entry as it lies in the registry."""

    number: int
    """From 1, handed out by the registry."""
    text: str
    """The entry itself, canonical JSON."""
    digest: str
    """SHA-256 of the text as its writer recorded it."""


def read(workspace: Path) -> list[Stored]:
    """Return every entry in the order of its number, void ones among them."""
    client = connect(workspace).client
    from mlflow.exceptions import MlflowException

    found: list[Stored] = []
    token: str | None = None
    while True:
        try:
            page = client.search_model_versions(f"name = '{LEDGER}'", max_results=_PAGE, page_token=token)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        found.extend(_stored(version) for version in page)
        token = page.token
        if not token:
            return sorted(found, key=lambda entry: entry.number)


def append(
    workspace: Path,
    compose: Callable[[Sequence[Stored]], str],
    counting: Callable[[Sequence[Stored]], Collection[int]],
) -> Stored:
    """Append one entry that counts, and return it.

    Args:
        workspace: the folder of ``params.yaml``.
        compose: from all entries to the new one's text, which names the latest counting entry's
            hash; the text of an entry that is there already means that nothing is to be done.
            Called again each time another writer was first; it raises to refuse.
        counting: from all entries to the numbers of those that count.

    Raises:
        RegistryError: other writers were first too many times, or ``compose`` refuses.
    """
    store = connect(workspace)
    for attempt in range(_ATTEMPTS):
        records = read(workspace)
        text = compose(records)
        if (there := _found(records, text, counting)) is not None:
            return there
        number = _put(store, text)
        if number in counting(read(workspace)):
            return Stored(number, text, _digest(text))
        time.sleep(random.uniform(0, 0.02 * min(attempt + 1, 25)))  # noqa: S311 (spreads writers, no secret)
    raise RegistryError(
        f"a ledger entry must follow the latest one, found another writer first {_ATTEMPTS} times "
        f"(registered model {LEDGER} at {store.tracking.shown}): see who else promotes, then try again"
    )


def _found(
    records: Sequence[Stored], text: str, counting: Callable[[Sequence[Stored]], Collection[int]]
) -> Stored | None:
    same = [record for record in records if record.text == text]
    numbers = counting(records) if same else ()
    return next((record for record in same if record.number in numbers), None)


def _put(store: Store, text: str) -> int:
    from mlflow.exceptions import MlflowException

    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    tags = {f"entry.{index}": chunk for index, chunk in enumerate(chunks)} | {"sha256": _digest(text)}
    for first in (True, False):
        try:
            return int(store.client.create_model_version(LEDGER, source=_SOURCE, tags=tags).version)
        except MlflowException as error:
            if not first or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            _make(store)
    raise AssertionError("unreachable")


def _make(store: Store) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(
            LEDGER, description="Stillhouse's ledger: one version an entry, append-only. Delete nothing here."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _stored(version: ModelVersion) -> Stored:
    tags = version.tags
    chunks = [tags[f"entry.{index}"] for index in range(len(tags)) if f"entry.{index}" in tags]
    return Stored(int(version.version), "".join(chunks), tags.get("sha256", ""))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
