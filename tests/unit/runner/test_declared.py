"""What dvc.yaml says of a stage, and what it refuses by hand."""

import os
import shutil
import subprocess
import sys

import pytest

from stillhouse.errors import NightError
from stillhouse.runner.closure import package_root
from stillhouse.runner.declared import declared, require_fresh
from stillhouse.runner.lifeline import NIGHT_PID


@pytest.fixture
def workspace(tmp_path):
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(package_root().parent / file, tmp_path)
    return tmp_path


def test_a_stage_takes_and_makes_what_its_command_names(workspace):
    packing = declared(workspace, "package@gru")
    assert packing.taken == {
        "student": workspace / "models/students/gru",
        "vocabulary": workspace / "data/vocabulary",
        "sequences": workspace / "data/sequences",
    }
    assert packing.made == {"package": workspace / "packages/gru", "run": workspace / "runs/package/gru.json"}
    assert declared(workspace, "prepare").made.keys() == {"vocabulary", "sequences", "run"}
    exported = declared(workspace, "export_soft_targets")
    assert exported.kept == {"soft_targets"} < exported.made.keys()
    assert not packing.kept
    assert declared(workspace, "distil") == declared(workspace, "distil@gru")


def test_by_hand_a_stage_whose_output_stands_is_refused_wherever_it_is_to_lie(workspace):
    given = {key: workspace / "elsewhere" / key for key in ("student", "package", "metrics", "run")}
    for key in ("student", "metrics", "run"):  # an input, and what the runner writes over
        given[key].mkdir(parents=True)
    require_fresh(workspace, "package@gru", given)
    given["package"].mkdir()
    with pytest.raises(NightError, match="must find no package of an earlier run, found /"):
        require_fresh(workspace, "package@gru", given)


def test_what_a_stage_keeps_of_its_output_itself_is_no_reason_to_refuse(workspace):
    store = workspace / "data" / "soft_targets"
    store.mkdir(parents=True)
    require_fresh(workspace, "export_soft_targets", {"soft_targets": store})


def test_the_command_refuses_in_one_line_before_it_reads_anything(workspace):
    made = declared(workspace, "admit").made.keys() - {"run"}
    assert made == {"admitted"}
    (workspace / "there.json").touch()
    words = ["stage", "admit", "verdict=v.json", "admitted=there.json", "metrics=m.json", "run=r.json"]
    by_hand = {key: value for key, value in os.environ.items() if key != NIGHT_PID}
    command = [sys.executable, "-m", "stillhouse", *words]
    done = subprocess.run(command, cwd=workspace, env=by_hand, capture_output=True, text=True)
    assert done.returncode == 2
    assert "stage admit must find no admitted of an earlier run" in done.stderr
    assert len(done.stderr.splitlines()) == 1
