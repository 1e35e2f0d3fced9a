"""`stillhouse tune` as a user runs it, in a workspace in which a night has closed."""

import json
import re
import subprocess
import time

import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.params.document import load_document

pytestmark = pytest.mark.slow

COMMAND = ("tune", "small", "--trials", "4", "--epochs", "3")


def trials_under_way(workspace):
    """How many trials have reported an epoch to the search's journal."""
    found = list(workspace.root.glob(".stillhouse/tune/small-*/study.jsonl"))
    lines = found[0].read_text().splitlines() if found else []
    return len({entry["trial_id"] for entry in map(json.loads, lines) if "intermediate_value" in entry})


def test_a_search_that_was_killed_goes_on_and_its_patch_applies(closed):
    # Enough steps to learn something by, and a rate at which nothing is learnt: what stands is easily bettered.
    steps = {"train_student.training.batch_size": 8, "train_student.training.warmup_steps": 0}
    steps |= {"train_student.distillation.start": "fresh"}
    closed.set({**steps, "train_student.training.learning_rate": 0.0001, "tune.learning_rate.low": 0.01})
    before = {name: sha256_tree(closed.root / name) for name in ("data", "models", "previous", "params.yaml")}
    killed = closed.start(*COMMAND)
    while trials_under_way(closed) < 2:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    done = closed.run(*COMMAND)
    assert re.search(r"tune small: [1-3] of 4 trials finished", done.err), done.err
    assert "tune small: 1/4" not in done.err, "what had finished is not trained again"
    for word in ("against what stands", "importance ", ".stillhouse/tune/small-", "git apply params.tune.small.patch"):
        assert word in done.out, word
    assert {name: sha256_tree(closed.root / name) for name in before} == before
    subprocess.run(["git", "apply", "params.tune.small.patch"], cwd=closed.root, check=True)
    document, _ = load_document(closed.root / "params.yaml")
    assert document.students["small"].training.learning_rate != 0.0001
    assert document.students["small"].training.epochs == 2  # a cap on trials changes no setting
