"""What must not be loaded, checked in fresh processes."""

import subprocess
import sys

import pytest


def modules_after(statement):
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_flows_loads_no_torch():
    assert "torch" not in modules_after("import flows.nightly")


def test_importing_what_serves_loads_no_torch():
    assert "torch" not in modules_after("import stillhouse.serve.student")


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "prefect", "great_expectations", "pandas", "dvc", "optuna"])
def test_the_command_line_starts_without(heavy):
    assert heavy not in modules_after("import stillhouse.cli.main")


def test_a_stage_that_reads_what_a_night_has_prepared_loads_no_pandas(make_sequences):
    vocabulary, sequences = make_sequences([[1, 2, 3], [2, 1]])
    read = f"read_night(Path({str(vocabulary)!r}), Path({str(sequences)!r}), False)"
    loaded = modules_after(f"from pathlib import Path\nfrom stillhouse.data.tonight import read_night\n{read}")
    assert loaded.isdisjoint({"pandas", "pyarrow.dataset"})


def test_what_holds_algorithms_fixed_does_not_load_torchs_compiler():
    held = "with repeatable(ComputeSpec(device='cpu')):\n    assert torch.are_deterministic_algorithms_enabled()"
    names = "from stillhouse.params.model import ComputeSpec\nfrom stillhouse.train.compute import repeatable"
    assert modules_after(f"import torch\n{names}\n{held}").isdisjoint({"torch._dynamo", "torch._inductor.config"})


def test_to_count_arithmetic_does_not_load_torchs_compiler():
    model = "build(GruSpec(kind='gru', width=4, blocks=1, length=3, dropout=0.0), 5, seed=1).eval()"
    names = "from stillhouse.models.build import build\nfrom stillhouse.models.cost import cost"
    counted = f"{names}\nfrom stillhouse.params.model import GruSpec\nassert cost({model})['flops'] > 0"
    assert "torch._dynamo" not in modules_after(counted)
