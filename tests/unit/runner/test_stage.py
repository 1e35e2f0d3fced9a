"""The runner on a stage of real code: `admit`, which is quick and can refuse."""

import functools
import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from stillhouse.data.files import write_json
from stillhouse.errors import DataError, NightError, ParamsError
from stillhouse.runner import outbox, outcome
from stillhouse.runner.closure import package_root
from stillhouse.runner.stage import STATE, run_stage


@pytest.fixture
def workspace(tmp_path):
    plain = yaml.safe_load((package_root().parent / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain))
    return tmp_path


def verdict(workspace, *, quarantined, passed=True):
    rows = 100
    value = {
        "snapshot_rows": rows,
        "accepted_rows": rows - quarantined,
        "quarantined_rows": quarantined,
        "reasons": {"user id missing": quarantined} if quarantined else {},
        "examples": {},
        "checks": [
            {
                "name": "ids",
                "level": "row",
                "reason": "user id missing",
                "value": quarantined,
                "passed": not quarantined,
                "text": f"user ids must be there, {quarantined} are missing",
            }
        ],
        "passed": passed,
    }
    write_json(workspace / "verdict.json", value)


def paths(workspace, **more):
    names = {
        "verdict": "verdict.json",
        "admitted": "out/admitted.json",
        "metrics": "m/admit.json",
        "run": "r/admit.json",
    }
    return {key: workspace / name for key, name in {**names, **more}.items()}


def test_a_stage_leaves_its_output_its_metrics_its_run_and_a_note_that_it_ran(workspace):
    verdict(workspace, quarantined=1)
    run_stage("admit", paths(workspace), workspace)
    assert (workspace / "out/admitted.json").exists()
    assert json.loads((workspace / "m/admit.json").read_text())["accepted_rows"] == 99
    run = json.loads((workspace / "r/admit.json").read_text())
    assert len(run["run_id"]) == 32
    assert outcome.outcome(workspace / STATE, "admit")["error"] is None


def test_under_a_flow_it_loads_no_mlflow_and_leaves_its_figures(workspace):
    verdict(workspace, quarantined=1)
    code = (
        "import sys; from pathlib import Path; from stillhouse.runner.stage import run_stage;"
        "root = Path(sys.argv[1]);"
        "run_stage('admit', {k: root / v for k, v in zip(sys.argv[2::2], sys.argv[3::2])}, root);"
        "print(sorted({'mlflow', 'sqlalchemy', 'torch', 'prefect', 'dvc'} & set(sys.modules)))"
    )
    given = [str(part) for pair in paths(workspace).items() for part in (pair[0], pair[1].relative_to(workspace))]
    environment = {**os.environ, outbox.STAGE_RUN: "r1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace), *given],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert json.loads((workspace / "r/admit.json").read_text())["run_id"] == "r1"
    left = outbox.waiting(workspace / STATE, "admit")
    assert (left.run_id, left.done, left.values["accepted_rows"]) == ("r1", True, 99)
    assert left.params["max_quarantined"] > 0
    assert not (workspace / STATE / "mlflow.db").exists()


def test_a_stage_that_fails_under_a_flow_leaves_its_settings_and_is_not_done(workspace, monkeypatch):
    monkeypatch.setenv(outbox.STAGE_RUN, "r1")
    verdict(workspace, quarantined=90)
    with pytest.raises(DataError):
        run_stage("admit", paths(workspace), workspace)
    left = outbox.waiting(workspace / STATE, "admit")
    assert (left.run_id, left.done, dict(left.values)) == ("r1", False, {})
    assert left.params


def test_a_known_error_crosses_the_process_boundary_with_its_class_and_line(workspace):
    verdict(workspace, quarantined=90)
    with pytest.raises(DataError) as caught:
        run_stage("admit", paths(workspace), workspace)
    with pytest.raises(DataError) as again:
        outcome.raise_if_failed(workspace / STATE, "admit")
    assert str(again.value) == str(caught.value)


def test_a_full_disk_is_a_known_error_wherever_the_stage_met_it(workspace):
    verdict(workspace, quarantined=1)
    (workspace / "out").mkdir()
    name = f".admitted.json.{os.getpid()}-{threading.get_ident()}.tmp"
    (workspace / "out" / name).symlink_to("/dev/full")
    with pytest.raises(NightError, match=r"stage admit must find room in .*No space left on device"):
        run_stage("admit", paths(workspace), workspace)
    with pytest.raises(NightError, match="the next run goes on"):
        outcome.raise_if_failed(workspace / STATE, "admit")
    run_stage("admit", paths(workspace), workspace)


def test_a_failed_stage_leaves_no_metrics_of_an_earlier_run(workspace):
    verdict(workspace, quarantined=1)
    run_stage("admit", paths(workspace), workspace)
    verdict(workspace, quarantined=90)
    with pytest.raises(DataError):
        run_stage("admit", paths(workspace), workspace)
    assert not (workspace / "m/admit.json").exists()


def test_a_wrong_set_of_paths_is_refused_by_name(workspace):
    verdict(workspace, quarantined=1)
    with pytest.raises(ParamsError, match="surplus: colour"):
        run_stage("admit", paths(workspace, colour="red"), workspace)


def test_an_unknown_stage_lists_the_close_ones(workspace):
    with pytest.raises(ParamsError, match="did you mean admit"):
        run_stage("admitt", {"metrics": Path("m"), "run": Path("r")}, workspace)


def test_garbage_is_looked_for_while_the_stage_works_even_where_it_was_put_off_for_the_start(workspace, monkeypatch):
    from stillhouse.stages import admit

    seen = []
    plain = admit.admit

    @functools.wraps(plain)
    def watched(**arguments):
        seen.append(gc.isenabled())
        return plain(**arguments)

    monkeypatch.setattr(admit, "admit", watched)
    verdict(workspace, quarantined=1)
    gc.disable()
    try:
        run_stage("admit", paths(workspace), workspace)
    finally:
        gc.enable()
        gc.unfreeze()
    assert seen == [True]
