"""A command looks for garbage seldom and ends at once; one that trains looks as often as ever."""

import json
import subprocess
import sys

import pytest

SAYS = """
import atexit, gc, json, sys
atexit.register(lambda: print(json.dumps([gc.get_threshold(), gc.get_freeze_count() > 1000])))  # first in, last out
sys.argv = ["stillhouse", *sys.argv[1:]]
from stillhouse.cli.main import main
main()
"""


@pytest.mark.parametrize(("command", "often"), [("status", False), ("stage", True), ("tune", True)])
def test_what_a_command_does_about_garbage(tmp_path, command, often):
    asked = [sys.executable, "-c", SAYS, "-C", str(tmp_path), command, *(["nothing"] if often else [])]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode not in (0, 1), done.stderr  # there is no workspace here, and it says so
    threshold, frozen = json.loads(done.stdout.splitlines()[-1])
    default = subprocess.run([sys.executable, "-c", "import gc; print(gc.get_threshold())"], capture_output=True)
    usual = json.loads(default.stdout.decode().replace("(", "[").replace(")", "]"))
    assert (threshold == usual) is often
    assert threshold[0] >= usual[0]
    assert frozen, "what is left at the end is not looked at again"
