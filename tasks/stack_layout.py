"""Where the stack of one machine keeps its things: one folder below ``.stillhouse``, sockets on short paths."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from stillhouse.data.files import replacing
from stillhouse.errors import StackError
from stillhouse.runner.stage import STATE

__all__ = ["MARK", "Layout", "alone", "layout_of", "write_private"]

#: Environment variable that marks every process of a stack with the stack's folder.
MARK = "STILLHOUSE_STACK"

#: Longest path of a folder of sockets: Linux allows a socket 107 bytes, ours have names of up to 26.
_SHORT = 80

#: Seconds that a command waits for another one that is at work on the same stack.
_MOMENT = 2.0


@dataclass(frozen=True)
class Layout:
    """The paths of one stack."""

    root: Path
    """The workspace."""
    stack: Path
    """The folder that holds all of it."""

    @property
    def client(self) -> Path:
        """What a person reads into a shell to work with the stack; holds passwords."""
        return self.stack / "env"

    @property
    def secrets(self) -> Path:
        """What the servers alone know, and the settings that outlive a stop."""
        return self.stack / "secrets"

    @property
    def config(self) -> Path:
        """The supervisor's configuration; holds no secret."""
        return self.stack / "supervisord.conf"

    @property
    def pid(self) -> Path:
        """The supervisor's process id."""
        return self.stack / "supervisord.pid"

    @property
    def programs(self) -> Path:
        """One script a program; they hold secrets."""
        return self.stack / "programs"

    @property
    def logs(self) -> Path:
        """What the programs print."""
        return self.stack / "logs"

    @property
    def database(self) -> Path:
        """PostgreSQL's data."""
        return self.stack / "postgres"

    @property
    def artifacts(self) -> Path:
        """The files that the tracking server keeps."""
        return self.stack / "artifacts"

    @property
    def prefect(self) -> Path:
        """The home of Prefect's server and workers."""
        return self.stack / "prefect"

    @property
    def workers(self) -> Path:
        """The clones that the workers of the pools ``cpu`` and ``gpu`` work in."""
        return self.stack / "workers"

    @property
    def sockets(self) -> Path:
        """Where sockets lie: inside the stack, or under a short name of its own where that path is too long."""
        inside = self.stack / "run"
        if len(os.fsencode(inside)) <= _SHORT:
            return inside
        digest = hashlib.sha256(os.fsencode(self.stack)).hexdigest()[:12]
        # Not TMPDIR: a later command, in another environment, must find the same place.
        return Path(f"/tmp/stillhouse-{os.geteuid()}-{digest}")  # noqa: S108  # ours alone, see `prepare`

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.sockets / "supervisor.sock"

    @property
    def database_socket(self) -> Path:
        """The folder of PostgreSQL's socket."""
        return self.sockets / "pg"

    def prepare(self) -> None:
        """Make the folders, closed to everybody else.

        Raises:
            StackError: the place of the sockets belongs to somebody else.
        """
        # PostgreSQL refuses to run as root; its own user must get through to its data, and see nothing else.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        (self.root / STATE).mkdir(exist_ok=True)
        for folder in (self.stack, self.sockets):
            folder.mkdir(mode=mode, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise StackError(f"{folder} must be a folder of this user, found another's: remove it")
            folder.chmod(mode)
        for folder in (self.programs, self.logs, self.artifacts, self.prefect, self.workers):
            folder.mkdir(mode=0o700, exist_ok=True)

    def remove_sockets(self) -> None:
        """Remove the folder of the sockets where it lies outside the stack; nothing may run."""
        if not self.sockets.is_relative_to(self.stack):
            shutil.rmtree(self.sockets, ignore_errors=True)


def layout_of(root: Path) -> Layout:
    """Return the layout of the workspace's stack.

    Raises:
        StackError: the workspace's path cannot be written into the supervisor's configuration.
    """
    root = root.resolve()
    if any(sign in str(root) for sign in "\n;#%"):
        raise StackError(f"a stack's path must hold no newline, ;, # or %, found {str(root)!r}: move the workspace")
    return Layout(root, root / STATE / "stack")


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep other commands off the stack.

    Raises:
        StackError: another command is at work on it.
    """
    place = layout.root / STATE
    place.mkdir(exist_ok=True)
    lock = filelock.FileLock(place / "stack.lock", timeout=_MOMENT)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StackError(
            f"one command at a time may work on a stack, found another at work in {layout.root}: wait for it to end"
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_private(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, readable for this user alone from its first byte on."""
    with replacing(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
