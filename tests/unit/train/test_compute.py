"""Device, precision and threads: taken as asked, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from stillhouse.errors import ParamsError
from stillhouse.params.base import build
from stillhouse.params.model import ComputeSpec
from stillhouse.train.compute import derived_seed, emulates_bfloat16, fabric_of, repeatable, scoring


def test_the_cpu_is_taken_when_asked_for() -> None:
    assert fabric_of(ComputeSpec(device="cpu")).device.type == "cpu"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"device": "tpu"}, r"device must be one of auto, cpu, cuda; got 'tpu' \(params.yaml: compute.device\)"),
        ({"precision": "7-bit"}, r"precision .* bf16-mixed; got '7-bit' \(params.yaml: compute.precision\)"),
    ],
)
def test_what_is_unknown_is_refused(change: dict[str, str], text: str) -> None:
    with pytest.raises(ParamsError, match=text):
        build(ComputeSpec, change, "params.yaml: compute")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without() -> None:
    with pytest.raises(ParamsError, match="device cuda must have a GPU, found none"):
        fabric_of(ComputeSpec(device="cuda"))
    assert fabric_of(ComputeSpec(device="auto")).device.type == "cpu"


def test_threads_and_algorithms_are_put_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with repeatable(ComputeSpec(threads=before[0] + 1)):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_derived_seed_depends_on_every_part() -> None:
    seeds = {derived_seed(*parts) for parts in [(0,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 1), (2**40, 0)]}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_only_scores_does_so_in_fabrics_precision(precision: str) -> None:
    compute = ComputeSpec(device="cpu", precision=precision, threads=1)
    torch.manual_seed(1)
    layer, given = torch.nn.Linear(8, 8), torch.randn(4, 8)
    with torch.no_grad(), fabric_of(compute).autocast():
        expected, made = layer(given), torch.ones(1)
    with torch.no_grad(), scoring(compute):
        found, same = layer(given), torch.ones(1)
    assert (found.dtype, same.dtype) == (expected.dtype, made.dtype)
    assert torch.equal(found, expected)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("of", [fabric_of, scoring])
def test_float16_on_a_processor_is_refused(of: Callable[[ComputeSpec], object]) -> None:
    with pytest.raises(ParamsError, match=r"precision 16-mixed must have a GPU, .*: set bf16-mixed or 32-true"):
        of(ComputeSpec(device="auto", precision="16-mixed"))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_scoring_touches_nothing_that_other_threads_share(precision: str) -> None:
    with scoring(ComputeSpec(device="cpu", precision=precision, threads=1)):
        assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("stage", ["check_teacher", "export_soft_targets"])
def test_a_stage_that_only_scores_does_not_load_what_training_needs(stage: str) -> None:
    code = f"import sys, stillhouse.stages.{stage}; print({{'torch._dynamo', 'lightning_fabric'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("precision", "able", "emulated"),
    [
        ("bf16-mixed", {"avx512_f": True}, True),
        ("bf16-mixed", {}, True),
        ("bf16-mixed", {"avx512_f": True, "avx512_bf16": True}, False),
        ("bf16-mixed", {"bf16": True}, False),
        ("32-true", {}, False),
    ],
)
def test_bfloat16_is_emulated_where_the_processor_lacks_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, able: dict[str, bool], emulated: bool
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able)
    assert emulates_bfloat16(ComputeSpec(device="cpu", precision=precision)) is emulated
