"""docs/settings.md is what the code reads, and says of every setting what it is."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from stillhouse.params.document import STAGE_PARAMS
from stillhouse.runner.closure import package_root


@pytest.fixture(name="script", scope="module")
def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page", package_root().parent / "scripts" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_reads(script: ModuleType) -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/settings_page.py"


def test_every_setting_is_explained_and_none_is_missing(script: ModuleType) -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.+) \| (.+) \| (.*) \|$", script.page())
    assert not [name for name, value, default, said in rows if not (value.strip() and default and said.strip())]
    for model in STAGE_PARAMS.values():
        beyond = {*model.shared, *model.night, "student"}
        assert {name for name in model.model_fields if name not in beyond} <= {row[0] for row in rows}
