"""An attempt at a stage and its tracking run, on a real registry."""

import pytest

from stillhouse.errors import DataError
from stillhouse.runner import outbox
from stillhouse.runner.stage import STATE
from stillhouse.tracking.runs import open_night_run
from stillhouse.tracking.store import connect
from tasks.attempts import attempt, deliver_left

NIGHT = "2026-03-12"


@pytest.fixture
def night(workspace):
    return open_night_run(workspace, NIGHT)


def said(root, run_id):
    return outbox.Poster(root / STATE, "prepare", run_id, {"k": 1})


def run_of(root, run_id):
    return connect(root).client.get_run(run_id)


def failing(root, night, error, meanwhile=lambda: None):
    """Let an attempt fail after its stage has begun, and return its run."""
    begun = []

    def perform():
        with attempt(root, night, NIGHT, "prepare") as run_id:
            begun.append(run_id)
            said(root, run_id)
            meanwhile()
            raise error

    with pytest.raises(type(error)):
        perform()
    return begun[0]


def test_what_the_stage_left_is_delivered_once_and_its_run_is_a_child_of_the_nights(workspace, night):
    with attempt(workspace, night, NIGHT, "prepare") as run_id:
        assert run_of(workspace, run_id).info.status == "RUNNING"
        said(workspace, run_id).log([(0, {"loss": 1.0})], {"rows": 3})
    run = run_of(workspace, run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"loss": 1.0, "rows": 3.0}, {"k": "1"})
    assert (run.data.tags["mlflow.parentRunId"], run.data.tags["night"]) == (night, NIGHT)
    assert outbox.waiting(workspace / STATE, "prepare") is None


def test_a_stage_that_failed_ends_its_run_with_the_line_and_the_settings(workspace, night):
    run_id = failing(workspace, night, DataError("too many bad rows"))
    run = run_of(workspace, run_id)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "DataError: too many bad rows")
    assert run.data.params == {"k": "1"}


def test_a_stage_that_never_began_ends_its_run_too(workspace, night):
    with pytest.raises(RuntimeError), attempt(workspace, night, NIGHT, "prepare") as run_id:
        raise RuntimeError("the worker is gone")
    assert run_of(workspace, run_id).info.status == "FAILED"


def test_a_stage_that_did_not_run_leaves_no_run(workspace, night):
    with attempt(workspace, night, NIGHT, "prepare") as run_id:
        pass
    assert run_of(workspace, run_id).info.lifecycle_stage == "deleted"


def test_what_a_night_did_not_live_to_deliver_the_next_one_delivers(workspace, night):
    left = attempt(workspace, night, NIGHT, "prepare")
    run_id = left.__enter__()
    said(workspace, run_id).log([], {"rows": 3})  # and here the night is killed
    deliver_left(workspace, "prepare")
    run = run_of(workspace, run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"rows": 3.0})


def test_an_answer_of_an_earlier_attempt_goes_to_the_run_of_that_attempt(workspace, night):
    cut_off = attempt(workspace, night, NIGHT, "prepare")
    first = cut_off.__enter__()  # the stage ended on its worker, whose night was killed
    with attempt(workspace, night, NIGHT, "prepare") as second:
        assert run_of(workspace, first).info.status == "KILLED"
        said(workspace, first).log([], {"rows": 3})  # what the worker's clone has kept
    assert run_of(workspace, first).info.status == "FINISHED"
    assert run_of(workspace, second).info.lifecycle_stage == "deleted"


def test_a_tracking_server_that_is_gone_does_not_hide_why_the_stage_failed(workspace, night, monkeypatch):
    from mlflow import MlflowClient

    def gone(*_arguments, **_settings):
        raise ConnectionError("no server")

    run_id = failing(
        workspace, night, DataError("too many bad rows"), lambda: monkeypatch.setattr(MlflowClient, "get_run", gone)
    )
    monkeypatch.undo()
    assert outbox.waiting(workspace / STATE, "prepare") is not None
    deliver_left(workspace, "prepare")
    assert run_of(workspace, run_id).info.status == "KILLED"


def test_a_message_that_could_not_be_delivered_stays(workspace, night, monkeypatch):
    from mlflow import MlflowClient

    def gone(*_arguments, **_settings):
        raise ConnectionError("no server")

    one = attempt(workspace, night, NIGHT, "prepare")
    run_id = one.__enter__()
    said(workspace, run_id).log([], {"rows": 3})
    monkeypatch.setattr(MlflowClient, "log_batch", gone)
    with pytest.raises(ConnectionError):
        one.__exit__(None, None, None)
    monkeypatch.undo()
    deliver_left(workspace, "prepare")
    assert run_of(workspace, run_id).data.metrics == {"rows": 3.0}


def test_a_message_for_a_run_that_is_not_there_any_more_holds_nothing_up(workspace, night):
    left = attempt(workspace, night, NIGHT, "prepare")
    deleted = left.__enter__()
    connect(workspace).client.delete_run(deleted)
    for run_id in ("0" * 32, deleted):  # the database was restored from before the one, a person deleted the other
        said(workspace, run_id).log([], {"rows": 3})
        deliver_left(workspace, "prepare")
        assert outbox.waiting(workspace / STATE, "prepare") is None
