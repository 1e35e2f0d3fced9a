"""Where real data lies, for tests that use it where it is there."""

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[3] / "shared"


def shared(name):
    """Return the folder ``name`` of the shared data, or skip the test, saying so."""
    folder = Path(os.environ.get("STILLHOUSE_SHARED", _DEFAULT)) / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not there: needs the shared data (STILLHOUSE_SHARED, or ../shared)")
    return folder
