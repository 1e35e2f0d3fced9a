"""What quality.yaml names: what is made first, and what is made again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TEACHER, MEMBER, STUDENT, ALONE, PACKED = ("t", 1), ("m", 1), ("s", 2), ("a", 2), ("p", 2)
SMALL = {"kind": "gru", "width": 8, "blocks": 1, "length": 10, "dropout": 0.0}


@pytest.fixture(name="quality_plan", scope="module")
def _quality_plan() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality_plan", BENCHMARKS / "quality_plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(**common: Any) -> dict[str, Any]:
    alone = {"train_student.distillation.alpha": 1.0, "train_student.distillation.start": "fresh"}
    return {
        "common": {"students": {"student": {"model": SMALL}}, **common},
        "runs": {
            "p": {"role": "student", "teacher": "t", "student_of": "s", "params": {"package.weights": "int8"}},
            "s": {"role": "student", "teacher": "m", "taught_by": "t"},
            "a": {"role": "student", "teacher": "m", "taught_by": "t", "params": alone},
            "t": {"role": "teacher", "taken": {"one": "m.1"}},
            "m": {"role": "teacher"},
        },
    }


@pytest.fixture(name="work")
def _work(tmp_path: Path) -> Path:
    """A folder in which everything is finished, by a version that wrote no digests."""
    for name, seed in (TEACHER, MEMBER, STUDENT, ALONE, PACKED):
        folder = tmp_path / "runs" / f"{name}.{seed}"
        model = folder / ("teacher" if name in "tm" else "student")
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(name.encode())
        (folder / "result.json").write_text(json.dumps({"seed": seed}))
    return tmp_path


def stale(quality_plan: ModuleType, of: dict[str, Any], work: Path) -> str:
    runs = quality_plan.there(of, work)
    assert len(runs) == 5
    return "".join(sorted(name for name, seed in runs if quality_plan.state(of, (name, seed), work) == "stale"))


def test_what_is_taken_stands_in_an_earlier_phase(quality_plan: ModuleType) -> None:
    wanted = quality_plan.selected(plan(), "*", 2)
    found = list(quality_plan.phases(plan(), wanted))
    assert found[0] == [("m", 1), ("m", 2)]
    assert found[1] == [("t", 1), ("t", 2)]
    assert found[2] == [("s", 1), ("s", 2), ("a", 1), ("a", 2)]
    assert found[3] == [("p", 1), ("p", 2)]
    assert list(quality_plan.phases(plan(), [("p", 1)])) == [[("p", 1)]]


def test_a_result_without_a_digest_is_taken_and_gets_one(quality_plan: ModuleType, work: Path) -> None:
    changed = plan(**{"train_teacher.training.epochs": 3})
    assert stale(quality_plan, changed, work) == ""
    quality_plan.adopt(plan(), work)
    figures = json.loads((work / "runs" / "m.1" / "result.json").read_text())
    assert figures == {"seed": 1, "digest": quality_plan.digest(plan(), MEMBER, work)}
    assert stale(quality_plan, plan(), work) == ""
    assert stale(quality_plan, changed, work) == "mt"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"compute": {"device": "auto", "precision": "bf16-mixed", "threads": 7}}, ""),
        ({"alerts.max_quarantined": 0.5}, ""),
        ({"compute": {"device": "cuda"}}, "amst"),
        ({"export_soft_targets.k": 7}, "s"),
        ({"train_student.training.epochs": 7}, "as"),
        ({"package.parity": 0.1}, "aps"),
    ],
)
def test_settings_that_a_run_reads_make_it_stale(
    setting: dict[str, Any], expected: str, quality_plan: ModuleType, work: Path
) -> None:
    quality_plan.adopt(plan(), work)
    assert stale(quality_plan, plan(**setting), work) == expected


@pytest.mark.parametrize(("model", "expected"), [("m.1/teacher", "t"), ("t.1/teacher", "s"), ("s.2/student", "p")])
def test_another_checkpoint_makes_what_takes_it_stale(
    model: str, expected: str, quality_plan: ModuleType, work: Path
) -> None:
    quality_plan.adopt(plan(), work)
    (work / "runs" / model / "model.safetensors").write_bytes(b"another")
    assert stale(quality_plan, plan(), work) == expected


def test_a_store_is_known_by_what_it_keeps_and_of_whom_whatever_the_seed(quality_plan: ModuleType, work: Path) -> None:
    def key(seed: int = 1, **changes: Any) -> str:
        params = quality_plan.merged(quality_plan.settings(plan(), "s"), {"seed": seed, **changes})
        return str(quality_plan.store_key(params, work / "runs" / "t.1" / "teacher"))

    first = key()
    assert key(seed=2) == key(**{"compute.threads": 9}) == first
    assert key(**{"export_soft_targets.k": 7}) != first
    (work / "runs" / "t.1" / "teacher" / "model.safetensors").write_bytes(b"another")
    assert key() != first


def test_every_run_of_the_shipped_plan_names_runs_that_there_are_and_settings_that_hold(
    quality_plan: ModuleType,
) -> None:
    from stillhouse.params.base import build, stage_values
    from stillhouse.params.document import STAGE_PARAMS

    shipped = yaml.safe_load((BENCHMARKS / "quality.yaml").read_text())
    runs = shipped["runs"]
    for name, run in runs.items():
        assert {source for source, _ in quality_plan.sources(shipped, (name, 1))} <= set(runs), name
        params = quality_plan.settings(shipped, name)
        for stage in ("train_teacher", "export_soft_targets", "train_student", "package"):
            model = STAGE_PARAMS[stage]
            build(model, stage_values(model, params, {}, "student" if model.instances else None), f"{name}: {stage}")
        if run["role"] == "student":
            assert runs[run["teacher"]]["role"] == "teacher", name
            alone = run.get("alone")
            assert alone is None or runs[alone]["teacher"] == run["teacher"], name


@pytest.mark.parametrize("name", ["s", "a"])
def test_what_continues_a_student_is_made_after_it_and_again_where_it_changed(
    quality_plan: ModuleType, work: Path, name: str
) -> None:
    of = plan()
    of["runs"]["on"] = {**of["runs"][name], "continues": name}
    assert (name, 2) in quality_plan.sources(of, ("on", 2))
    before = quality_plan.digest(of, ("on", 2), work)
    assert before != quality_plan.digest(of, (name, 2), work)
    (work / "runs" / f"{name}.2" / "student" / "model.safetensors").write_bytes(b"trained anew")
    assert quality_plan.digest(of, ("on", 2), work) != before
