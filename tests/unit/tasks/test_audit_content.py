"""A chain of nights is walked by what each handed on; what a night took is held against the one before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.audit_content import ancestors
from tasks.content import Contents
from tasks.record import teacher_record_of
from tasks.teachers import Teachers


@pytest.mark.parametrize(
    ("taken", "found"), [(b"one", ["verified", "verified"]), (b"of nobody", ["verified", "altered"])]
)
def test_a_teacher_that_a_night_further_back_did_not_make_is_found(
    root: Path, taught: Any, taken: bytes, found: list[str]
) -> None:
    taught("2026-03-02", b"one")
    taught("2026-03-03", b"two", start="warm", previous="2026-03-02", before=taken)
    night = taught("2026-03-04", b"three", start="warm", previous="2026-03-03", before=b"two")
    predicate = json.loads(teacher_record_of(root, night, lambda _night, _md5: None).statement)["predicate"]
    link = ancestors(root, Contents({}), predicate, Teachers.of(root))
    assert [one.name for one in link.below] == ["night 2026-03-03", "night 2026-03-02"]
    assert [one.state for one in link.below] == found
    assert ("handed on: previous/teacher" in link.below[1].says) == (taken != b"one")
