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
