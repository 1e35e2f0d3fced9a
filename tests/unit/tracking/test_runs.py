from pathlib import Path

import pytest

from stillhouse.errors import DataError, RegistryError
from stillhouse.runner.outbox import Message
from stillhouse.tracking import runs


def test_a_night_has_one_run_however_often_it_is_opened(workspace, client):
    first = runs.open_night_run(workspace, "2026-03-12", {"as_of": "2026-03-12T00:00:00+00:00"})
    runs.finish_night_run(workspace, first, "FAILED")
    assert runs.open_night_run(workspace, "2026-03-12", {"attempt": "2"}) == first
    run = client.get_run(first)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "night 2026-03-12"
    assert (run.data.tags["as_of"], run.data.tags["attempt"]) == ("2026-03-12T00:00:00+00:00", "2")
    assert runs.open_night_run(workspace, "2026-03-13") != first


def test_a_stage_is_a_child_that_holds_what_its_process_left(workspace, client):
    night = runs.open_night_run(workspace, "2026-03-12")
    run = runs.open_stage_run(workspace, "train_student@gru", night, "2026-03-12")
    assert client.get_run(run).info.status == "RUNNING"
    params = {"training": {"epochs": 3, "ks": [1, 10]}, "seed": 7, "path": None}
    series = [(0, {"loss": 2.0}), (1, {"loss": 1.5, "ndcg@10": 0.1})]
    values = {"leave_one_out": {"ndcg_at_10": 0.2}, "note": "x"}
    runs.deliver(workspace, Message(run, params, series, values, at=1_700_000_000_000, done=True), "FINISHED")
    found = client.get_run(run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "train_student@gru"
    tags = found.data.tags
    assert (tags["stage"], tags["night"], tags["mlflow.parentRunId"]) == ("train_student@gru", "2026-03-12", night)
    assert found.data.params == {"training.epochs": "3", "training.ks": "[1, 10]", "seed": "7", "path": "None"}
    assert found.data.metrics == {"loss": 1.5, "ndcg.10": 0.1, "leave_one_out.ndcg_at_10": 0.2}
    history = client.get_metric_history(run, "loss")
    assert [(point.value, point.timestamp) for point in history] == [(2.0, 1_700_000_000_000), (1.5, 1_700_000_000_000)]


def test_what_is_delivered_twice_is_one_point_and_a_finished_run_stays_finished(workspace, client):
    run = runs.open_stage_run(workspace, "prepare")
    cut_off = Message(run, {"k": 1}, [(0, {"loss": 2.0})], {}, at=5)
    runs.deliver(workspace, cut_off, "KILLED")
    runs.deliver(workspace, cut_off, "FINISHED")
    assert len(client.get_metric_history(run, "loss")) == 1
    runs.deliver(workspace, cut_off, "FAILED", "DataError: late")
    found = client.get_run(run)
    assert (found.info.status, "error" in found.data.tags) == ("FINISHED", False)


def test_a_run_of_a_stage_that_said_nothing_ends_with_its_error_or_goes(workspace, client):
    failed, unused = (runs.open_stage_run(workspace, "prepare") for _ in range(2))
    runs.deliver(workspace, Message(failed, {}), "FAILED", "RuntimeError: the worker is gone")
    runs.drop_stage_run(workspace, unused)
    found = client.get_run(failed)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "RuntimeError: the worker is gone")
    assert client.get_run(unused).info.lifecycle_stage == "deleted"


def test_metrics_of_a_stage_are_written_in_one_call(workspace, monkeypatch):
    from mlflow import MlflowClient

    calls = []
    plain = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient, "log_batch", lambda self, *a, **k: calls.append(len(k.get("metrics", ()))) or plain(self, *a, **k)
    )
    with runs.stage_run(workspace, "prepare", {}) as run:
        run.log([(step, {"loss": 1.0, "norm": 2.0}) for step in range(400)], {"rows": 3})
    assert calls == [801]


def test_more_than_a_call_takes_is_split(workspace, client):
    with runs.stage_run(workspace, "prepare", {f"p{i}": i for i in range(230)}) as run:
        run.log([(step, {"loss": 1.0}) for step in range(1200)], {})
    assert len(client.get_run(run.run_id).data.params) == 230
    assert len(client.get_metric_history(run.run_id, "loss")) == 1200


def test_what_is_no_finite_number_is_no_metric():
    values = {"a": 1, "b": float("nan"), "c": True, "d": None, "e": "x", "f": {"g": 2.5}}
    assert {one.key: one.value for one in runs._numbers(values, 0)} == {"a": 1.0, "f.g": 2.5}


def test_a_stage_without_a_night_stands_alone(workspace, client):
    with runs.stage_run(workspace, "prepare", {}) as run:
        pass
    assert "mlflow.parentRunId" not in client.get_run(run.run_id).data.tags


def test_a_stage_that_raises_leaves_a_failed_run_with_its_line(workspace, client):
    with pytest.raises(DataError), runs.stage_run(workspace, "admit", {}) as run:
        raise DataError("too many bad rows,\n 12 %")
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "DataError: too many bad rows, 12 %")


def test_a_stage_that_is_told_to_stop_leaves_a_killed_run(workspace, client):
    with pytest.raises(KeyboardInterrupt), runs.stage_run(workspace, "admit", {}) as run:
        raise KeyboardInterrupt
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_a_run_that_a_killed_process_left_open_is_closed_by_the_next_attempt(workspace, client):
    night = runs.open_night_run(workspace, "2026-03-12")
    killed = runs.open_stage_run(workspace, "prepare", night)
    busy = runs.open_stage_run(workspace, "validate", night)
    runs.open_stage_run(workspace, "prepare", night)
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(busy).info.status == "RUNNING", "another stage's run is none of its business"


def test_the_night_names_the_runs_of_reused_stages(workspace, client):
    night = runs.open_night_run(workspace, "2026-03-12")
    runs.tag_reused(workspace, night, {"prepare": "r1", "train_student@gru": "r2"})
    tags = client.get_run(night).data.tags
    assert (tags["stage.prepare.run_id"], tags["stage.train_student.gru.run_id"]) == ("r1", "r2")


def test_a_finished_night_holds_its_figures(workspace, client):
    night = runs.open_night_run(workspace, "2026-03-12")
    runs.finish_night_run(workspace, night, "FINISHED", {"gru": {"ndcg_at_10": 0.5}}, {"champion": "3"})
    run = client.get_run(night)
    assert (run.info.status, run.data.metrics, run.data.tags["champion"]) == ("FINISHED", {"gru.ndcg_at_10": 0.5}, "3")


def test_files_and_values_are_kept_with_the_run(workspace, client, tmp_path):
    night = runs.open_night_run(workspace, "2026-03-12")
    report = tmp_path / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>")
    runs.log_files(workspace, night, report, "data_docs")
    runs.log_dict(workspace, night, {"b": 1, "a": 2}, "gate/decision.json")
    assert [one.path for one in client.list_artifacts(night, "data_docs")] == ["data_docs/index.html"]
    path = client.download_artifacts(night, "gate/decision.json", str(tmp_path))
    assert Path(path).read_text() == '{\n "a": 2,\n "b": 1\n}\n'


def test_a_name_with_a_quote_is_refused(workspace):
    with pytest.raises(RegistryError, match="must hold no quote"):
        runs.open_night_run(workspace, "x' or '1'='1")


def test_a_search_has_one_run_and_its_trials_are_nested_in_it(workspace, client):
    with runs.search_run(workspace, "gru-0123", "gru", {"settings": "alpha"}) as first:
        with runs.trial_run(workspace, first.run_id, 0, {"alpha": 0.3}) as trial:
            trial.log([(0, {"valid_ndcg_at_10": 0.1})], {})
            trial.tag({"end": "pruned"})
        first.log([], {"best": 0.1})
    with runs.search_run(workspace, "gru-0123", "gru") as again:
        assert client.get_run(again.run_id).info.status == "RUNNING"
    with runs.search_run(workspace, "gru-4567", "gru") as other:
        pass
    assert (again.run_id, other.run_id != first.run_id) == (first.run_id, True)
    found, nested = client.get_run(first.run_id), client.get_run(trial.run_id)
    assert (found.info.status, found.info.run_name, found.data.metrics) == ("FINISHED", "tune gru", {"best": 0.1})
    assert (found.data.tags["student"], found.data.tags["settings"]) == ("gru", "alpha")
    assert (nested.info.status, nested.info.run_name, nested.data.params) == ("FINISHED", "trial 0", {"alpha": "0.3"})
    assert (nested.data.tags["mlflow.parentRunId"], nested.data.tags["end"]) == (first.run_id, "pruned")


def test_a_trial_that_a_killed_search_left_open_is_closed_when_it_goes_on(workspace, client):
    killed = runs.search_run(workspace, "gru-0123", "gru")
    trial = runs.trial_run(workspace, killed.__enter__().run_id, 4, {})
    left = trial.__enter__()
    with runs.search_run(workspace, "gru-0123", "gru"):
        assert client.get_run(left.run_id).info.status == "KILLED"
