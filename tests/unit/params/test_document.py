"""What `params.yaml` as a whole refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.errors import ParamsError
from stillhouse.params.document import load_document
from stillhouse.runner.closure import package_root


def refusal(folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Return what is said of the shipped params.yaml after ``change`` has been made to it."""
    plain: dict[str, Any] = yaml.safe_load((package_root().parent / "params.yaml").read_text())
    change(plain)
    (folder / "params.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ParamsError) as caught:
        load_document(folder / "params.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("weight", [-0.5, float("inf"), float("nan")])
def test_a_weight_that_would_reward_what_is_wrong_is_refused(weight: float, tmp_path: Path) -> None:
    plain: dict[str, Any] = yaml.safe_load((package_root().parent / "params.yaml").read_text())
    plain["event_weights"]["view"] = weight
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ParamsError, match=r"event_weights\.view"):
        load_document(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("section", "key", "place"),
    [
        ("train_student", "seed", "at the top of params.yaml"),
        ("export_soft_targets", "compute", "at the top of params.yaml"),
        ("evaluate", "repeat_items", "at the top of params.yaml"),
        ("prepare", "event_weights", "at the top of params.yaml"),
        ("validate", "as_of", "in night.yaml"),
        ("train_student", "student", "in the section students"),
    ],
)
def test_what_stands_elsewhere_is_not_overwritten_without_a_word(
    section: str, key: str, place: str, tmp_path: Path
) -> None:
    told = refusal(tmp_path, lambda plain: plain[section].update({key: 5}))
    assert f"{key} must stand {place}" in told
    assert f"found it in {section} (params.yaml: {section}.{key})" in told


def test_a_misspelt_setting_is_not_told_of_what_stands_elsewhere(tmp_path: Path) -> None:
    told = refusal(tmp_path, lambda plain: plain["export_soft_targets"].update(keepnights=5))
    assert "did you mean keep_nights?" in told
    assert "compute" not in told
    assert "seed" not in told


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda plain: plain["students"].update(teacher=plain["students"]["gru"]), "must not be called teacher"),
        (lambda plain: plain["students"].update({"g" * 65: plain["students"]["gru"]}), "a name in students must match"),
        (
            lambda plain: plain["students"].update({"a.b": plain["students"]["gru"]}),
            "got 'a.b' (params.yaml",
        ),
        (lambda plain: plain.update(seed=2**63), "seed: input should be less than 9223372036854775808"),
        (
            lambda plain: plain["train_student"]["distillation"].update(methods=[{"kind": "softt"}]),
            "methods.0 must be one of",
        ),
    ],
)
def test_names_and_numbers_that_would_fail_hours_later_are_refused(
    change: Callable[[dict[str, Any]], None], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(tmp_path, change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda plain: plain["gate"].update(reference="last"),
            "gate.reference must be first, none or a whole number, got 'last' (params.yaml: gate.reference)",
        ),
        (
            lambda plain: plain["students"].update(gru=plain["students"]["gru"]["model"]),
            "students.gru.model must be set, found nothing (params.yaml: students.gru.model); setting must be one of "
            "distillation, model, training; got 'blocks' (params.yaml: students.gru); nor does it know dropout, kind, "
            "length, queries, width",
        ),
        (
            lambda plain: plain["students"].update(gru=None),
            "students.gru must be a section of settings, got None (params.yaml: students.gru)",
        ),
        (
            lambda plain: plain["train_teacher"]["model"].update(heads=3),
            "model: heads must divide width, got 3 heads of width 64 (params.yaml: train_teacher.model)",
        ),
        (
            lambda plain: plain["export_soft_targets"].update(copies=True),
            "copies must be a number, got True (params.yaml: export_soft_targets.copies)",
        ),
        (
            lambda plain: plain["export_soft_targets"].update(temperatures=[1.0, 1.0]),
            "temperatures: temperatures must differ (params.yaml: export_soft_targets.temperatures)",
        ),
    ],
)
def test_a_problem_is_said_once_and_in_the_words_of_the_file(
    change: Callable[[dict[str, Any]], None], expected: str, tmp_path: Path
) -> None:
    assert refusal(tmp_path, change) == expected


def test_a_list_of_one_wrong_value_is_not_called_too_short(tmp_path: Path) -> None:
    told = refusal(tmp_path, lambda plain: plain["export_soft_targets"].update(temperatures=[0.0]))
    assert "greater than 0" in told
    assert "at least 1 item" not in told
