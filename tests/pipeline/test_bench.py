"""What `make bench` runs, run: nothing else would see that a benchmark calls what has changed under it."""

import re
import subprocess
import sys

import pytest
from workspaces import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.drill, pytest.mark.timeout(3600)]


def test_every_program_of_make_bench_runs():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbench:")[2].partition("\n\n")[0]
    programs = re.findall(r"(benchmarks/\w+\.py)(.*)", recipe)
    assert len(programs) > 3
    for program, arguments in programs:
        done = subprocess.run(
            [sys.executable, program, *arguments.split()], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stdout}\n{done.stderr}"
