"""What the system refuses is one line that says what must hold; anything else stays a defect."""

import errno
import shutil
import sqlite3
from pathlib import Path

import pytest

from stillhouse.runner.outcome import no_room, refusal


class OperationalError(Exception):
    """As SQLAlchemy calls it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "there must be room on the disk"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "there must be room on the disk"),
        (sqlite3.OperationalError("database or disk is full"), "there must be room on the disk"),
        (OperationalError("(sqlite3.OperationalError) disk I/O error"), "there must be room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), "files must be readable"),
        (OSError(errno.EROFS, "Read-only file system"), "files must be readable"),
        (OperationalError("attempt to write a readonly database"), "files must be readable"),
    ],
)
def test_what_the_system_refuses_is_one_line_wherever_it_came_from(error, said):
    assert said in refusal(error)
    outer = RuntimeError("a stage failed")
    outer.__cause__ = error
    assert "the next run goes on" in str(no_room("prepare", Path("here"), outer))
    assert "\n" not in refusal(outer)


@pytest.mark.parametrize(
    "error", [None, ValueError("No space left on device"), FileNotFoundError(errno.ENOENT, "gone"), KeyError("x")]
)
def test_anything_else_is_a_defect(error):
    assert refusal(error) is None
