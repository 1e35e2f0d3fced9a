"""By what a child process finds this environment's programs, and the code of a clone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["code_of", "programs"]


def programs(environ: Mapping[str, str] = os.environ) -> str:
    """Return a PATH on which this interpreter's own programs come first, before those of ``environ``."""
    return os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])


def code_of(clone: Path) -> str:
    """Return a PYTHONPATH for the flows, the tasks and the library of ``clone``."""
    return os.pathsep.join([str(clone / "src"), str(clone)])
