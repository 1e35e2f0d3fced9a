"""Content that DVC keeps, read again and held against its own name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stillhouse.lineage.audit import State
from tasks.graph import repository

__all__ = ["Contents", "contents"]

_CHUNK = 1 << 20
_DIR = ".dir"


class Contents:
    """Looks content up by its MD5, in the cache and then in the remote; each piece is read once."""

    def __init__(self, stores: dict[str, Any]) -> None:
        self._stores = stores
        self._seen: dict[str, tuple[State, str]] = {}

    def state(self, md5: str) -> tuple[State, str]:
        """Say whether the content named ``md5`` is there and is what its name says; of a folder, every file of it.

        Returns:
            ``verified``, ``missing`` or ``altered``, and one line about it.
        """
        if md5 not in self._seen:
            self._seen[md5] = self._folder(md5) if md5.endswith(_DIR) else self._file(md5)
        return self._seen[md5]

    def files(self, md5: str) -> dict[str, str]:
        """Return relative name → MD5 of every file of the folder named ``md5``; empty where it is not whole."""
        data = self.read(md5)
        return {} if data is None else {entry["relpath"]: entry["md5"] for entry in json.loads(data)}

    def read(self, md5: str) -> bytes | None:
        """Return the bytes named ``md5`` (of a folder: its list of files), ``None`` where no store has them whole."""
        for store in self._stores.values():
            path = store.oid_to_path(md5)
            if store.fs.exists(path):
                with store.fs.open(path, "rb") as file:
                    data: bytes = file.read()
                if _md5(data) == md5.removesuffix(_DIR):
                    return data
        return None

    def sha256(self, md5: str) -> str | None:
        """Return the SHA-256 of the file named ``md5``, where its first copy lies; ``None``: no store has it."""
        for store in self._stores.values():
            path = store.oid_to_path(md5)
            if store.fs.exists(path):
                with store.fs.open(path, "rb") as file:
                    return _digest(file, hashlib.sha256())
        return None

    def _folder(self, md5: str) -> tuple[State, str]:
        own = self._file(md5)
        if own[0] != "verified":
            return own
        files = self.files(md5)
        wrong: dict[State, list[str]] = {"altered": [], "missing": []}
        for name, digest in files.items():
            state, _ = self.state(digest)
            if state != "verified":
                wrong[state].append(name)
        for state, names in wrong.items():
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                return state, f"{', '.join(sorted(names)[:3])}{more} {'is' if len(names) == 1 else 'are'} {state}"
        return "verified", f"{len(files)} file{'s' * (len(files) != 1)} re-read in the {own[1].rpartition(' ')[2]}"

    def _file(self, md5: str) -> tuple[State, str]:
        for name, store in self._stores.items():
            path = store.oid_to_path(md5)
            if not store.fs.exists(path):
                continue
            with store.fs.open(path, "rb") as file:
                digest = _digest(file, hashlib.md5(usedforsecurity=False))
            if digest != md5.removesuffix(_DIR):
                return "altered", f"the copy in the {name} hashes to {digest[:12]}"
            return "verified", f"re-read in the {name}"
        return "missing", f"neither in the {' nor in the '.join(self._stores)}"


def _digest(file: Any, digest: hashlib._Hash) -> str:
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@contextmanager
def contents(root: Path) -> Iterator[Contents]:
    """Open the workspace's cache and its default remote, where it has one.

    Raises:
        NightError: DVC cannot work in ``root``.
    """
    from dvc.exceptions import DvcException

    with repository(root) as repo:
        stores = {"cache": repo.cache.local}
        with suppress(DvcException):  # no remote is set up: the cache is all there is
            stores["remote"] = repo.cloud.get_remote_odb()
        yield Contents(stores)
