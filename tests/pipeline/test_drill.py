"""The drill's short form: three nights on a whole stack, with a death, an approval, bad data and a forged entry."""

import json
import subprocess
import sys

import pytest
from workspaces import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(3600)]


def test_three_nights_come_to_what_was_expected_of_them(tmp_path):
    table = tmp_path / "table.json"
    command = [sys.executable, str(ROOT / "scripts" / "drill.py"), "--nights", "3", "--json", str(table)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    steps = json.loads(table.read_text())
    assert all(step["held"] for step in steps)
    tried = {step["what"] for step in steps}
    assert {"bad data", "the GPU worker and its stage killed", "gate.mode: approve", "stillhouse rollback"} <= tried
    assert {"a ledger entry edited", "the entry put back"} <= tried
