"""The night's desk: what is ordered with what, on a real registry; workers are played."""

import json
import uuid
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest

from stillhouse.errors import DataError, NightError
from stillhouse.runner import outbox
from stillhouse.tracking.runs import finish_night_run, open_night_run
from stillhouse.tracking.store import connect
from tasks import dispatch
from tasks.dispatch import Desk
from tasks.graph import Stage
from tasks.order import Done, Order
from tasks.policy import policy_of

NIGHT = "2026-03-12"
A, B, C = (Stage(name, upstream, "gpu", ()) for name, upstream in (("a", ()), ("b", ("a",)), ("c", ("b", "far"))))


class Workers:
    """Workers who answer as they are told to: (number of the order, stage) → what the answer is, or the error."""

    def __init__(self):
        self.orders, self.answers, self.current, self.taken = [], {}, set(), []

    def asked(self, _stage, order):
        self.orders.append(order)
        return SimpleNamespace(id=uuid.UUID(int=len(self.orders)))

    def run_id(self, number, stage):
        return next(step.run_id for step in self.orders[number - 1].steps if step.stage == stage)

    def stages(self):
        return [[step.stage for step in order.steps] for order in self.orders]

    def answer_on(self, stage, run, _policy):
        told = self.answers.get((run.int, stage.name), Done(stage.name, True, {}))
        if isinstance(told, Exception):
            raise told
        if told is not None and told.error is None:
            ran = outbox.Message(self.run_id(run.int, stage.name), {}, values={"rows": 3}, done=True)
            return Done(stage.name, True, {}, message=ran.document())
        return told


@pytest.fixture
def workers(monkeypatch):
    one = Workers()
    monkeypatch.setattr(dispatch, "_asked", one.asked)
    monkeypatch.setattr(dispatch, "_answer_on", one.answer_on)
    monkeypatch.setattr(dispatch, "is_current", lambda _root, name: name in one.current)
    monkeypatch.setattr(dispatch, "upstream_entries", lambda _root, names: {name: {"cmd": name} for name in names})
    monkeypatch.setattr(dispatch, "take_outputs", lambda _root, name, _entry, _where: one.taken.append(name))
    return one


@pytest.fixture
def desk(workspace):
    night = SimpleNamespace(id=NIGHT)
    return Desk(workspace, night, "commit", open_night_run(workspace, NIGHT), ("above",))


def ask(desk, stage, *line):
    return desk.ask(stage, list(line), policy_of("gpu"))


def runs(root):
    """Stage → status of each of its runs, oldest first; a deleted one is not there."""
    store = connect(root)
    found = store.client.search_runs(
        [store.experiment_id], "tags.kind = 'stage'", order_by=["attributes.start_time ASC"]
    )
    told = {}
    for run in found:
        told.setdefault(run.data.tags["stage"], []).append(run.info.status)
    return told


def test_a_line_is_one_order_and_each_of_it_is_answered_for_and_tracked(workspace, desk, workers):
    assert ask(desk, A, B, C).ran
    assert ask(desk, B, C).ran
    assert ask(desk, C).ran
    (order,) = workers.orders
    taken = {step.stage: step.inputs for step in order.steps}
    assert taken == {"a": {}, "b": {}, "c": {"far": {"cmd": "far"}}}, "what the order names itself is not given"
    assert order.name == f"{NIGHT}: a, b, c"
    assert order.resource == "gpu", "whoever takes it gives each of its stages a GPU"
    assert workers.taken == ["a", "b", "c"]
    assert runs(workspace) == {"a": ["FINISHED"], "b": ["FINISHED"], "c": ["FINISHED"]}


def test_a_worker_that_ended_before_a_stage_is_asked_again_for_it_by_the_same_attempt(workspace, desk, workers):
    ask(desk, A, B, C)
    workers.answers[1, "b"] = None
    assert ask(desk, B, C).ran
    assert ask(desk, C).ran
    assert workers.stages() == [["a", "b", "c"], ["b", "c"]]
    assert workers.run_id(1, "b") == workers.run_id(2, "b")
    assert runs(workspace) == {"a": ["FINISHED"], "b": ["FINISHED"], "c": ["KILLED", "FINISHED"]}


def test_after_a_crash_the_next_attempt_orders_the_rest_of_the_line_anew(workspace, desk, workers):
    ask(desk, A, B, C)
    workers.answers[1, "b"] = RuntimeError("the worker is gone")
    with pytest.raises(RuntimeError, match="gone"):
        ask(desk, B, C)
    assert ask(desk, B, C).ran
    assert ask(desk, C).ran
    assert workers.stages() == [["a", "b", "c"], ["b", "c"]]
    assert runs(workspace) == {"a": ["FINISHED"], "b": ["FAILED", "FINISHED"], "c": ["KILLED", "FINISHED"]}


def test_a_known_error_is_raised_and_what_was_ordered_behind_it_is_closed_with_the_night(workspace, desk, workers):
    workers.answers[1, "a"] = Done("a", False, None, "too many bad rows", "DataError")
    with pytest.raises(DataError, match="too many bad rows"):
        ask(desk, A, B, C)
    assert workers.taken == []
    assert runs(workspace) == {"a": ["FAILED"], "b": ["RUNNING"], "c": ["RUNNING"]}
    finish_night_run(workspace, desk._night_run, "FAILED")
    assert runs(workspace) == {"a": ["FAILED"], "b": ["KILLED"], "c": ["KILLED"]}


def test_what_could_not_be_ordered_is_closed_with_the_night_too(workspace, desk, workers, monkeypatch):
    def nobody(*_):
        raise NightError("the deployment stage/cpu must be on the Prefect server")

    monkeypatch.setattr(dispatch, "_asked", nobody)
    with pytest.raises(NightError, match="deployment"):
        ask(desk, A, B)
    finish_night_run(workspace, desk._night_run, "FAILED")
    assert runs(workspace) == {"a": ["FAILED"], "b": ["KILLED"]}


@pytest.mark.parametrize("stage", ["a", "b"])
def test_an_attempt_that_failed_on_this_side_is_followed_by_one_that_hears_the_same_answer(
    workspace, desk, workers, monkeypatch, stage
):
    """A full disk here, say: the worker is at what follows meanwhile, and is not asked for it once more."""
    lines = {"a": (A, B, C), "b": (B, C), "c": (C,)}
    for name, line in lines.items():
        if name == stage:
            with monkeypatch.context() as patch:
                patch.setattr(dispatch, "take_outputs", mock.Mock(side_effect=OSError("No space left on device")))
                with pytest.raises(OSError, match="No space"):
                    ask(desk, *line)
            assert runs(workspace)[name] == ["FAILED"]
        assert ask(desk, *line).ran
    assert workers.stages() == [["a", "b", "c"]]
    assert runs(workspace) == {"a": ["FINISHED"], "b": ["FINISHED"], "c": ["FINISHED"]}


def test_the_rest_of_a_line_whose_attempt_failed_on_this_side_is_tracked_where_it_was_performed(
    workspace, desk, workers, monkeypatch
):
    """The night ends there; its worker has gone on to b for some seconds, and the night is taken up again."""
    monkeypatch.setattr(dispatch, "take_outputs", mock.Mock(side_effect=NightError("the remote must be there")))
    with pytest.raises(NightError):
        ask(desk, A, B)
    finish_night_run(workspace, desk._night_run, "FAILED")
    said = outbox.Message(workers.run_id(1, "b"), {}, values={"rows": 3}, done=True)  # what the clone has kept
    again = Desk(workspace, desk._night, "commit", open_night_run(workspace, NIGHT), ("above",))
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "is_current", lambda *_: False)
        patch.setattr(dispatch, "upstream_entries", lambda *_: {})
        patch.setattr(dispatch, "take_outputs", lambda *_: None)
        patch.setattr(dispatch, "_asked", lambda *_: SimpleNamespace(id=uuid.UUID(int=2)))
        patch.setattr(dispatch, "_answer_on", lambda *_: Done("b", False, {}, message=said.document()))
        assert not ask(again, B).ran
    assert runs(workspace)["b"] == ["FINISHED"]


def test_what_is_up_to_date_here_is_not_waited_for(workspace, desk, workers):
    ask(desk, A, B, C)
    workers.current.add("b")
    workers.answers[1, "b"] = workers.answers[1, "c"] = None
    assert ask(desk, B, C) is None
    assert ask(desk, C).ran
    assert workers.stages() == [["a", "b", "c"], ["c"]]
    assert runs(workspace) == {"a": ["FINISHED"], "c": ["FINISHED"]}, "the run of b is deleted: it is nobody's"


def test_runs_that_a_killed_night_had_opened_ahead_are_closed_when_it_is_taken_up_again(workspace, desk, workers):
    ask(desk, A, B, C)  # and here the night is killed
    open_night_run(workspace, NIGHT)
    assert runs(workspace) == {"a": ["FINISHED"], "b": ["KILLED"], "c": ["KILLED"]}


def test_an_order_is_the_same_where_keys_come_back_in_another_order(desk, workers):
    """As PostgreSQL keeps them: by length, and then by their letters."""

    def kept(value):
        if isinstance(value, dict):
            return {key: kept(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}
        return [kept(one) for one in value] if isinstance(value, (list, tuple)) else value

    stages = [Stage(name, upstream, "cpu", ()) for name, upstream in (("ingest", ()), ("admit", ("ingest",)))]
    ask(desk, *stages)
    order = workers.orders[0]
    again = Order.of(kept(json.loads(json.dumps(order.document()))))
    assert again.name == f"{NIGHT}: ingest, admit"
    assert again == replace(order, parents=["above"])


class Server:
    """A Prefect server with one run, whose state and answers change from one look to the next."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def read_flow_run(self, _run):
        self.state, self.answer = self.looks.pop(0)
        return SimpleNamespace(state=self.state)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([("Running", None), ("Running", "answered")], "answered"),  # while the worker goes on to what follows
        ([("Running", None), ("Completed", "answered")], "answered"),
        ([("Running", None), ("Failed", "answered")], "answered"),  # a known error is an answer
        ([("Running", None), ("Completed", None)], None),
        ([("Running", None), ("Crashed", None)], "RuntimeError"),
        ([("Failed", None)], "RuntimeError"),
    ],
)
def test_an_answer_is_taken_as_soon_as_it_is_there_and_a_run_that_ended_badly_without_one_has_crashed(
    monkeypatch, looks, expected
):
    from prefect.client.schemas.objects import State, StateType

    server = Server(*((State(type=StateType[name.upper()], name=name), answer) for name, answer in looks))
    monkeypatch.setattr(dispatch, "get_client", lambda **_: server)
    monkeypatch.setattr(dispatch, "answer_of", lambda client, _run, _stage: client.answer)
    monkeypatch.setattr(dispatch, "_pause", lambda _waited: 0.0)
    if expected == "RuntimeError":
        with pytest.raises(RuntimeError, match="stage a on pool gpu must end with an answer"):
            dispatch._answer_on(A, uuid.uuid4(), policy_of("gpu"))
    else:
        assert dispatch._answer_on(A, uuid.uuid4(), policy_of("gpu")) == expected
    assert server.looks == []
