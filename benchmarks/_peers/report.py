"""A table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

__all__ = ["machine", "table", "write"]

_RESULTS = Path(__file__).parents[1] / "results"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and how busy it was when they were written."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "load": os.getloadavg()[0],
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows`` under ``head``: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells))


def write(name: str, command: Sequence[str], **found: Any) -> None:
    """Write ``results/NAME.json``: the machine, the command and what was found."""
    _RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "command": " ".join(command), **found}
    (_RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
