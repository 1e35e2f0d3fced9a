"""Types are checked of every program in benchmarks/, and of two in scripts/: pyproject.toml names them."""

import tomllib

from workspaces import ROOT


def test_every_benchmark_is_named_where_types_are_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    programs = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))
    eased = [one["module"] for one in settings["overrides"] if one.get("disallow_untyped_calls") is False]
    assert settings["modules"] == sorted([*programs, "drill", "settings_page"])
    assert eased == [sorted([*programs, "drill"])]
