"""The patch, against git and patch themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.errors import ParamsError
from stillhouse.runner.closure import package_root
from stillhouse.tuning.patch import patched, unified
from stillhouse.tuning.space import Place, with_values

ALPHA, RATE = ("distillation", "alpha"), ("training", "learning_rate")
WEIGHT = ("distillation", "methods", 1, "weight")
SETTINGS = {
    "training": {"epochs": 3, "learning_rate": 0.01},
    "distillation": {"alpha": 0.3, "methods": [{"kind": "soft"}, {"kind": "rank", "weight": 1.0}]},
}
CHANGES: dict[Place, float] = {ALPHA: 0.25, RATE: 0.002, WEIGHT: 3.0}

INHERITED = """\
seed: 1   # kept
students:
  # the small ones
  gru:
    model: {kind: gru, width: 16}   # narrow

    # between two

  other: {model: {kind: gru}}
gate: {margin: 0.02}
"""
OWN = """\
students:
  gru:
    model:
      kind: gru
      tags: [a,
             b]
    distillation:
      alpha: 0.30     # found by hand
      methods:
        - {kind: soft}
        - kind: rank
          weight: 1.0 # the ranks
        # no more
    training: {epochs: 3, learning_rate: 1.0e-2}   # long enough
"""
FLOW = "students: {gru: {model: {kind: gru}, distillation: {alpha: 0.3, methods: [{kind: soft}, {kind: rank}]} } }\n"
LAST = "students:\n  gru:\n    model: {kind: gru}"


def applied(before: str, after: str, folder: Path, *command: str) -> str:
    """Return what ``command`` makes of the file, given the patch."""
    (folder / "params.yaml").write_bytes(before.encode())
    (folder / "change.patch").write_bytes(unified(before, after, "params.yaml", "why it is so").encode())
    subprocess.run([*command], cwd=folder, check=True, capture_output=True)
    return (folder / "params.yaml").read_bytes().decode()


@pytest.mark.parametrize("before", [INHERITED, OWN, FLOW, LAST, INHERITED.replace("\n", "\r\n")])
def test_git_applies_the_patch_and_nothing_but_the_student_changes(before: str, tmp_path: Path) -> None:
    after = patched(before, "gru", SETTINGS, CHANGES)
    plain = yaml.safe_load(before)
    own = {name: plain["students"]["gru"].get(name, SETTINGS[name]) for name in SETTINGS}
    plain["students"]["gru"] |= with_values(own, CHANGES)
    assert yaml.safe_load(after) == plain
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert applied(before, after, tmp_path, "git", "apply", "change.patch") == after


def test_a_section_of_its_own_is_changed_where_it_stands_with_its_comments() -> None:
    after = patched(OWN, "gru", SETTINGS, CHANGES)
    told = [line for line in after.splitlines() if line not in OWN.splitlines()]
    assert told == [
        "      alpha: 0.25     # found by hand",
        "          weight: 3.0 # the ranks",
        "    training: {epochs: 3, learning_rate: 0.002}   # long enough",
    ]


def test_a_common_section_is_copied_whole_into_the_student_because_its_own_stands_in_place_of_it() -> None:
    after = patched(INHERITED, "gru", SETTINGS, {RATE: 0.002})
    added = "    training: {epochs: 3, learning_rate: 0.002}"
    assert after == INHERITED.replace("# narrow\n", f"# narrow\n{added}\n")


def test_one_setting_changed_leaves_the_other_section_alone() -> None:
    assert "training" not in patched(INHERITED, "gru", SETTINGS, {ALPHA: 0.5})


def test_an_anchor_that_others_share_is_refused_with_what_to_set_by_hand() -> None:
    shared = "students:\n  gru: {distillation: &mix {alpha: 0.3}}\n  other: {distillation: *mix}\n"
    with pytest.raises(ParamsError, match=r"set by hand: distillation.alpha = 0.25"):
        patched(shared, "gru", {"distillation": {"alpha": 0.3}}, {ALPHA: 0.25})


@pytest.mark.parametrize("student", ["gru", "transformer"])
def test_the_shipped_params_take_a_patch(student: str, tmp_path: Path) -> None:
    text = (package_root().parent / "params.yaml").read_text()
    plain: dict[str, Any] = yaml.safe_load(text)
    settings = {name: plain["students"][student].get(name, plain["train_student"][name]) for name in SETTINGS}
    after = patched(text, student, settings, {ALPHA: 0.111, RATE: 0.00222})
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert applied(text, after, tmp_path, "git", "apply", "--verbose", "change.patch") == after
    assert (
        yaml.safe_load(after)["students"][student]["distillation"]["alpha"],
        yaml.safe_load(after)["students"][student]["training"]["learning_rate"],
    ) == (0.111, 0.00222)


def test_a_student_that_is_another_by_an_alias_is_refused() -> None:
    shared = "students:\n  gru: &one {training: {learning_rate: 0.01}}\n  other: *one\n"
    with pytest.raises(ParamsError, match=r"set by hand: training.learning_rate = 0.002"):
        patched(shared, "other", {"training": {"learning_rate": 0.01}}, {RATE: 0.002})
