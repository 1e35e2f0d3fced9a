"""What a stage's process leaves for the flow: that it ran, and how it ended.

A stage runs in a process of its own under DVC, which keeps nothing of an error
but an exit code. The note written here tells the flow whether the stage ran at
all (a reused one leaves none) and carries a known error's line back.
"""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

from stillhouse.data.files import read_json, write_json
from stillhouse.errors import NightError, StillhouseError, by_name, one_line

__all__ = ["TRIAL", "clear", "failed", "finished", "no_room", "outcome", "raise_if_failed", "refusal", "trial_write"]

#: What a write is told that finds no room: on the disk, or in what somebody may use of it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What is told whoever may not read or write.
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
#: The same where a library hands on a text alone: SQLite's, and shutil's lists of what could not be copied.
_NO_ROOM_SAID = ("No space left on device", "Disk quota exceeded", "database or disk is full", "disk I/O error")
_NOT_ALLOWED_SAID = ("Permission denied", "Read-only file system", "attempt to write a readonly database")

#: Whose errors hand on such a text without a number.
_HAND_ON = ("OperationalError", "MlflowException")

#: Bytes of a trial write: a disk that is full has room for a few, where something larger found none.
TRIAL = 1 << 20


def _note(state: Path, stage: str) -> Path:
    return state / "outcomes" / f"{stage}.json"


def clear(state: Path, stage: str) -> None:
    """Forget how ``stage`` ended before. ``state``: the workspace's ``.stillhouse``."""
    _note(state, stage).unlink(missing_ok=True)


def finished(state: Path, stage: str, seconds: float) -> None:
    """Note that ``stage`` ran to its end in ``seconds``."""
    _write(state, stage, {"seconds": seconds, "error": None})


def failed(state: Path, stage: str, error: BaseException) -> None:
    """Note that ``stage`` ended with ``error``."""
    known = isinstance(error, StillhouseError)
    text = str(error) if known else f"{type(error).__name__}: {one_line(str(error))}"
    _write(state, stage, {"error": text, "known": type(error).__name__ if known else None})


def _write(state: Path, stage: str, value: dict[str, object]) -> None:
    path = _note(state, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


def outcome(state: Path, stage: str) -> dict[str, object] | None:
    """Return how ``stage`` ended, or ``None`` where it has not run since `clear`."""
    path = _note(state, stage)
    return read_json(path) if path.exists() else None


def raise_if_failed(state: Path, stage: str) -> None:
    """Raise the known error that ``stage`` left behind, if it left one.

    Raises:
        StillhouseError: of the class that the stage raised, with its line.
    """
    note = outcome(state, stage)
    if note and note.get("known"):
        raise by_name(str(note["known"]))(str(note["error"]))


def no_room(stage: str, place: Path, error: BaseException | None) -> NightError | None:
    """Return the known error that ``error`` is where the system refused room or leave to write, otherwise ``None``.

    Args:
        stage: the stage that was to be performed.
        place: the folder that it works in.
        error: what was raised; what it was raised from counts too.
    """
    line = refusal(error, f"stage {stage} must find room in {place}", f"stage {stage} must be able to write to {place}")
    return None if line is None else NightError(line)


def refusal(
    error: BaseException | None,
    room: str = "there must be room on the disk",
    leave: str = "files must be readable, and writable where something is kept",
) -> str | None:
    """Return the line that ``error`` is where the system refused room or leave to write, otherwise ``None``.

    Args:
        error: what was raised; what it was raised from counts too.
        room: what must hold about room.
        leave: what must hold about leave.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        text = str(error) if isinstance(error, OSError) or type(error).__name__ in _HAND_ON else ""
        if number in _NO_ROOM or any(said in text for said in _NO_ROOM_SAID):
            return one_line(f"{room}, got: {error}; make room, the next run goes on")
        if number in _NOT_ALLOWED or any(said in text for said in _NOT_ALLOWED_SAID):
            return one_line(f"{leave}, got: {error}; make it so, the next run goes on")
        error = error.__cause__ or error.__context__
    return None


def trial_write(folder: Path) -> OSError | None:
    """Return what a trial write into ``folder`` says, ``None`` where it goes well: on a full disk there is no note."""
    trial = folder / f"trial.{uuid.uuid4().hex}.new"
    try:
        trial.write_bytes(bytes(TRIAL))
    except OSError as error:
        return error
    finally:
        trial.unlink(missing_ok=True)
    return None
