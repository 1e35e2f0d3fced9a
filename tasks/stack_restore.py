"""A stack made again from a backup: built beside the one that is there, then put in its place.

Nothing that was there is lost: the stack is moved beside, a file of DVC's remote
stays unless it is damaged. What vouches for a ledger that went on after the backup
(its head in the remote, the tags of later nights) would call the restored one cut off:
it is laid aside, last of all, and said to be. A restore that is cut off leaves the stack
as it was, is finished by the next command, or leaves a ledger that is refused until the
restore is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stillhouse.data.files import md5_file, replacing, write_bytes
from stillhouse.errors import StackError
from tasks import stack_postgres
from tasks.stack_backup import FORMAT, LEDGERS, MANIFEST, TAGS, remote_folder, run_git
from tasks.stack_control import Supervisor, sweep
from tasks.stack_layout import Layout, alone, layout_of
from tasks.stack_programs import inherited, programs_of, write_programs
from tasks.stack_settings import DATABASES, Settings, keep, read_env, settings_for, without_postgres

__all__ = ["Restored", "finish_restore", "restore"]

_COMPLETE = "complete"
_PATIENCE = 120.0
_CHUNK = 1 << 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    before: Path | None
    """Where the stack lies that was there; ``None``: there was none."""
    remote_files: int
    """Files that DVC's remote lacked, or held damaged."""
    tags: int
    """Tags of nights that git lacked."""
    other_tags: tuple[str, ...]
    """Tags that name something else here, and were left."""
    later_nights: tuple[str, ...]
    """Tags of nights that the backup does not know, laid aside below ``refs/before-restore``."""


def _beside(layout: Layout) -> Layout:
    return Layout(layout.root, layout.stack.with_name("stack.restoring"))


def finish_restore(layout: Layout) -> None:
    """Put a restored stack into its place where a restore was killed between its last two moves."""
    fresh = _beside(layout)
    if not fresh.stack.exists():
        return
    sweep(fresh)
    if (fresh.stack / _COMPLETE).exists() and not layout.stack.exists():
        fresh.stack.replace(layout.stack)
    else:  # cut off earlier: the backup is there to begin again with
        _discard(fresh)


def _discard(fresh: Layout) -> None:
    shutil.rmtree(fresh.stack, ignore_errors=True)
    fresh.remove_sockets()


def restore(root: Path, source: Path, say: Say) -> Restored:
    """Make the stack what the backup ``source`` holds. The stack must be down, and stays down.

    Args:
        root: the workspace.
        source: the backup.
        say: told each step, one line.

    Raises:
        StackError: the stack is up, the backup is damaged, or another command is at work on the stack.
    """
    layout = layout_of(root)
    with alone(layout):
        finish_restore(layout)
        if Supervisor(layout).answers():
            raise StackError(f"the stack must be down for a restore, found it up in {root}: `make stack-down` first")
        sweep(layout)
        fresh = _beside(layout)
        fresh.prepare()
        try:
            rebuilt = _rebuild(fresh, source, say)
        except BaseException:
            _discard(fresh)
            raise
        before = _swap(layout, fresh)
        # Not before: killed here, the restored ledger is refused as cut off until the restore is done again.
        _lay_heads_aside(layout, rebuilt.heads)
        later = _lay_tags_aside(root, rebuilt.nights)
    return Restored(before, rebuilt.remote_files, rebuilt.tags, rebuilt.other_tags, later)


@dataclass(frozen=True)
class _Rebuilt:
    """What a backup gave to others than the stack, and what it vouches with."""

    remote_files: int
    tags: int
    other_tags: tuple[str, ...]
    nights: frozenset[str]
    """Refs of the nights that the backup knows."""
    heads: Mapping[str, bytes]
    """File → content of the heads of ledgers in its remote."""


def _rebuild(fresh: Layout, source: Path, say: Say) -> _Rebuilt:
    """Make a whole stack beside the one that is there, and give the remote and git what they lack."""
    unpacked = fresh.stack / "unpacked"
    say("checking the backup")
    _unpack(source, unpacked)
    settings = _settings(fresh, unpacked)
    say("databases")
    _fill(fresh, settings, unpacked)
    shutil.rmtree(fresh.artifacts)
    (unpacked / "artifacts").replace(fresh.artifacts)
    say("DVC's remote and the nights' tags")
    heads = {file.name: file.read_bytes() for file in (unpacked / "remote" / LEDGERS).glob("*.json")}
    placed = _fill_remote(fresh.root, unpacked / "remote")
    tags, others = _fetch_tags(fresh.root, unpacked / "nights.bundle")
    nights = frozenset(_heads_of(fresh.root, unpacked / "nights.bundle"))
    shutil.rmtree(unpacked)
    write_bytes(fresh.stack / _COMPLETE, b"")
    return _Rebuilt(placed, tags, others, nights, heads)


def _lay_heads_aside(layout: Layout, heads: Mapping[str, bytes]) -> None:
    """Put the backup's heads of ledgers into the remote; one that named a later entry is kept in the stack."""
    remote, _address = remote_folder(layout.root)
    for name, content in heads.items() if remote is not None else ():
        here = None if remote is None else remote / LEDGERS / name
        if here is not None and here.read_bytes() != content:
            aside = layout.stack / "ledgers-before"
            aside.mkdir(exist_ok=True)
            shutil.copy2(here, aside / name)
            write_bytes(here, content)


def _lay_tags_aside(root: Path, known: frozenset[str]) -> tuple[str, ...]:
    """Rename the tags of nights that the backup does not know; nothing of them goes."""
    here = dict(line.split()[::-1] for line in run_git(root, "for-each-ref", _SHAPE, TAGS).splitlines())
    later = sorted(name for name in here if name not in known)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    moves = [f"create refs/before-restore/{stamp}/{_short(name)} {here[name]}\ndelete {name}\n" for name in later]
    if moves:
        run_git(root, "update-ref", "--stdin", given="".join(moves))
    return tuple(_short(name) for name in later)


def _short(name: str) -> str:
    return name.removeprefix("refs/tags/")


def _unpack(source: Path, folder: Path) -> None:
    """Take the backup apart into ``folder``, every file checked against the list in it."""
    for name in ("artifacts", "remote", "database"):
        (folder / name).mkdir(parents=True)
    found: dict[str, str] = {}
    manifest: Mapping[str, Any] | None = None
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is None or not _is_plain(member.name) or member.name in found:
                    raise _damaged(source, f"the entry {member.name!r}")
                if member.name == MANIFEST:
                    manifest = json.load(file)
                else:
                    found[member.name] = _extract(file, folder / member.name)
    except FileNotFoundError:
        raise StackError(f"a backup must be there, found none ({source})") from None
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise _damaged(source, f"{type(error).__name__}: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise _damaged(source, f"no {MANIFEST} at its end: it was cut off, or is no backup of a stack")
    if manifest.get("format") != FORMAT:
        raise StackError(f"a backup must be of format {FORMAT}, found {manifest.get('format')!r} ({source})")
    listed = {name: one.get("sha256") for name, one in manifest["files"].items()}
    for name in sorted({*listed, *found}):
        if found.get(name) != listed.get(name):
            raise _damaged(source, f"{name} " + ("missing" if name not in found else "with other content"))


def _damaged(source: Path, what: str) -> StackError:
    return StackError(f"a backup must be what it was when it was made, found {what} ({source}): restore another one")


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _extract(file: IO[bytes], target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _settings(fresh: Layout, unpacked: Path) -> Settings:
    """Take over the secrets of the backup; never the address of a PostgreSQL, which may be in use elsewhere."""
    kept = without_postgres(read_env((unpacked / "secrets").read_text()))
    keep(fresh, Settings(kept))
    settings = settings_for(fresh, os.environ)
    keep(fresh, settings)
    return settings


def _fill(fresh: Layout, settings: Settings, unpacked: Path) -> None:
    if not settings.runs_postgres:
        stack_postgres.require_databases(fresh, settings)
        kept = fresh.stack / "database-before"
        kept.mkdir(mode=0o700)
        for name in DATABASES:
            stack_postgres.dump(fresh, settings, name, kept / f"{name}.dump")
        _fill_databases(fresh, settings, unpacked)
        return
    stack_postgres.initialise(fresh, settings)
    binary = stack_postgres.postgres_binary(fresh)
    postgres = [
        one for one in programs_of(fresh, settings, binary, stack_postgres.run_user()) if one.group == "database"
    ]
    write_programs(fresh, postgres)
    supervisor = Supervisor(fresh)
    supervisor.spawn(inherited(os.environ, fresh))
    try:
        supervisor.start(postgres[0])
        variables = settings.database(fresh, "prefect")
        supervisor.wait_for(postgres, lambda: stack_postgres.ready(variables), "PostgreSQL must answer", _PATIENCE)
        _fill_databases(fresh, settings, unpacked)
    finally:
        supervisor.stop()


def _fill_databases(fresh: Layout, settings: Settings, unpacked: Path) -> None:
    for name in DATABASES:
        stack_postgres.fill(fresh, settings, name, unpacked / "database" / f"{name}.dump")


def _fill_remote(root: Path, unpacked: Path) -> int:
    """Give DVC's remote the files that it lacks or holds damaged; return how many."""
    remote, _address = remote_folder(root)
    placed = 0
    for path in sorted(unpacked.rglob("*")) if remote is not None else ():
        if not path.is_file() or remote is None:
            continue
        target = remote / path.relative_to(unpacked)
        if target.exists() and not _is_damaged(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.move(path, temporary)
        placed += 1
    return placed


def _is_damaged(path: Path) -> bool:
    """Say whether a file of the remote whose name is its content's MD5 holds something else."""
    name = (path.parent.name + path.name).removesuffix(".dir")
    if len(name) != 32 or path.parent.parent.name != "md5":
        return False
    return md5_file(path) != name


def _fetch_tags(root: Path, bundle: Path) -> tuple[int, tuple[str, ...]]:
    """Fetch the tags that git lacks; return how many, and those that name something else here."""
    if not bundle.exists():
        return 0, ()
    here = dict(line.split()[::-1] for line in run_git(root, "for-each-ref", _SHAPE, TAGS).splitlines())
    there = _heads_of(root, bundle)
    missing = [name for name in there if name not in here]
    if missing:
        run_git(root, "fetch", "--quiet", "--no-tags", str(bundle), *(f"{name}:{name}" for name in missing))
    others = sorted(_short(name) for name in there if here.get(name, there[name]) != there[name])
    return len(missing), tuple(others)


def _heads_of(root: Path, bundle: Path) -> dict[str, str]:
    """Return ref → commit of a bundle; nothing where there is none."""
    if not bundle.exists():
        return {}
    return dict(line.split()[::-1] for line in run_git(root, "bundle", "list-heads", str(bundle)).splitlines())


_SHAPE = "--format=%(objectname) %(refname)"


def _swap(layout: Layout, fresh: Layout) -> Path | None:
    """Put the restored stack into its place, the one that was there beside it."""
    before = None
    if layout.stack.exists():
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        before = layout.stack.with_name(f"stack.before-restore-{stamp}")
        layout.stack.replace(before)
    fresh.stack.replace(layout.stack)
    (layout.stack / _COMPLETE).unlink()
    fresh.remove_sockets()
    return before
