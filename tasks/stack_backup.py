"""A backup of a stack: one file with everything that a new machine needs, and a list of what must be in it.

The stack may be at work meanwhile. So the nights' tags and the ledgers' heads come
first: they then name nothing that the databases, taken next, do not hold. Whatever
those name is in turn among the files that are copied after them.

======================  ===========================================================
in the file             what it is
======================  ===========================================================
``database/NAME.dump``  a database, in PostgreSQL's own format
``artifacts/``          the tracking server's files
``remote/``             DVC's default remote, where it is a folder
``nights.bundle``       the tags of the nights, as git keeps them
``secrets``             what the servers know: the file must be kept as safe as they
``manifest.json``       size and SHA-256 of each of these, last
======================  ===========================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stillhouse.data.files import replacing
from stillhouse.errors import StackError, one_line
from tasks import stack_postgres
from tasks.graph import repository
from tasks.stack_control import Supervisor
from tasks.stack_layout import alone, layout_of
from tasks.stack_settings import DATABASES, settings_for

__all__ = ["FORMAT", "LEDGERS", "MANIFEST", "TAGS", "Backup", "back_up", "remote_folder", "run_git"]

FORMAT = 1
MANIFEST = "manifest.json"

#: The tags that belong to the nights.
TAGS = "refs/tags/night"

#: Where the heads of ledgers lie in DVC's remote (`tasks.anchors`).
LEDGERS = "stillhouse/ledgers"

#: How names of files end that are being written.
_UNFINISHED = (".tmp", ".new")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    path: Path
    size: int
    files: int
    left_out: tuple[str, ...]
    """What has to be backed up elsewhere."""


def remote_folder(root: Path) -> tuple[Path | None, str]:
    """Return the folder of DVC's default remote, ``None`` where it is none, and the remote's address."""
    with repository(root) as repo:
        name = repo.config["core"].get("remote")
        address = str(repo.config["remote"][name]["url"]) if name else ""
    return (Path(address) if address.startswith("/") else None), address


def back_up(root: Path, target: Path, say: Say) -> Backup:
    """Write a backup of the stack to ``target``, whole or not at all.

    Args:
        root: the workspace, its stack up.
        target: the file; its folder is made. One that is there is replaced.
        say: told each step, one line.

    Raises:
        StackError: the database does not answer, or another command is at work on the stack.
    """
    layout = layout_of(root)
    with alone(layout):
        settings = settings_for(layout, {})
        if not layout.secrets.exists() or (settings.runs_postgres and not Supervisor(layout).answers()):
            raise StackError(f"the stack must be up for a backup, found it down in {root}: `make stack` first")
        target.parent.mkdir(parents=True, exist_ok=True)
        remote, address = remote_folder(root)
        with replacing(target) as temporary:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it holds secrets
            with os.fdopen(handle, "wb") as file, tempfile.TemporaryDirectory(dir=layout.stack) as scratch:
                writer = _Writer(file)
                say("the nights' tags")
                if _bundle(root, bundle := Path(scratch) / "nights.bundle"):
                    writer.add("nights.bundle", bundle)
                if remote is not None:
                    writer.add_folder(f"remote/{LEDGERS}", remote / LEDGERS, _UNFINISHED)
                for name in DATABASES:
                    say(f"database {name}")
                    dump = Path(scratch) / f"{name}.dump"
                    stack_postgres.dump(layout, settings, name, dump)
                    writer.add(f"database/{name}.dump", dump)
                    dump.unlink()
                say("artifacts")
                writer.add_folder("artifacts", layout.artifacts)
                if remote is not None:
                    say("DVC's remote")
                    writer.add_folder("remote", remote, _UNFINISHED, but=remote / LEDGERS)
                writer.add("secrets", layout.secrets)
                writer.close()
    left_out = () if remote is not None else (f"DVC's remote {address or '(none)'}: it is no folder of this machine",)
    return Backup(target, target.stat().st_size, len(writer.listed), left_out)


class _Writer:
    """A tar that notes what it is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self.listed: dict[str, dict[str, object]] = {}

    def add(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._add(name, file, size)

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(time.time())
        reader = _Hashing(file)
        self._tar.addfile(info, reader)
        self.listed[name] = {"bytes": size, "sha256": reader.digest.hexdigest()}

    def add_folder(self, name: str, folder: Path, unfinished: tuple[str, ...] = (), but: Path | None = None) -> None:
        """Add every file below a folder, but not below ``but``, nor one whose name says that it is being written."""
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name.endswith(unfinished):
                continue
            if but is not None and path.is_relative_to(but):
                continue
            try:
                self.add(f"{name}/{path.relative_to(folder).as_posix()}", path)
            except FileNotFoundError:  # gone since it was listed: nothing that stays
                continue

    def close(self) -> None:
        text = json.dumps({"format": FORMAT, "files": self.listed}, sort_keys=True, indent=1) + "\n"
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(text.encode()), 0o600
        self._tar.addfile(info, io.BytesIO(text.encode()))
        self._tar.close()


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _bundle(root: Path, file: Path) -> bool:
    """Write the nights' tags as a bundle; ``False`` where there are none."""
    listed = run_git(root, "for-each-ref", "--format=%(refname)", TAGS).split()
    if not listed:
        return False
    run_git(root, "bundle", "create", "--quiet", str(file), "--stdin", given="\n".join(listed) + "\n")
    return True


def run_git(root: Path, *arguments: str, given: str | None = None) -> str:
    """Return what git prints.

    Raises:
        StackError: git refuses.
    """
    done = subprocess.run(["git", *arguments], cwd=root, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(one_line(f"git {arguments[0]} must succeed in the workspace, it said: {done.stderr}"))
    return done.stdout.strip()
