"""A stage on a worker ends with the runs that it is a part of, its own among them."""

import contextlib
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound

from flows import stage
from stillhouse.errors import DataError
from tasks import answering
from tasks.order import Done

#: An order of two stages, as it comes to a worker.
STEPS = [{"stage": name, "inputs": {}, "run_id": "r"} for name in ("admit", "prepare")]
ORDER = {"night": "2026-03-02", "commit": "c", "steps": STEPS, "code": "d", "parents": [], "limit_seconds": 60}


class Runs:
    """A Prefect server of which only the states of some runs are asked; one that is not there is not found."""

    def __init__(self, states):
        self.states = states

    def read_flow_run(self, run):
        if run not in self.states:
            raise ObjectNotFound(LookupError(run))
        return SimpleNamespace(state=self.states[run])


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def running():
    return State(type=StateType.RUNNING)


@pytest.fixture
def server(monkeypatch):
    runs = Runs({})
    monkeypatch.setattr(answering, "get_client", lambda **_: contextlib.nullcontext(runs))
    monkeypatch.setattr(answering, "LOOK", 0.05)
    return runs


@pytest.mark.parametrize("ended", [0, 1])
@pytest.mark.parametrize("gone", [False, True])
def test_what_a_stage_has_started_is_killed_once_a_run_above_it_or_its_own_is_over(server, child, ended, gone):
    ids = [uuid.uuid4(), uuid.uuid4()]
    server.states = {one: running() for one in ids}
    with answering.end_with(*map(str, ids)) as given_up:
        time.sleep(0.3)
        assert not given_up()
        assert psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE, "both are at work"
        if gone:
            del server.states[ids[ended]]
        else:
            server.states[ids[ended]] = State(type=StateType.CRASHED)
        assert child.wait(timeout=10) < 0
        assert given_up(), "who waits and has started nothing hears of it too"


def test_a_server_that_is_away_says_nothing(server, child, monkeypatch):
    def away(_run):
        raise ConnectionError("no server")

    monkeypatch.setattr(server, "read_flow_run", away)
    with answering.end_with(str(uuid.uuid4())):
        time.sleep(0.5)
        assert child.poll() is None


def test_a_stage_on_a_worker_watches_its_own_run_and_those_that_the_order_names(monkeypatch):
    watched = []

    @contextlib.contextmanager
    def end_with(*runs):
        watched.extend(runs)
        yield "whether it was given up"

    def carry_out(order, _clone, given_up):
        watched.append(given_up)
        yield from (Done(step.stage, True, {}) for step in order.steps)

    own = uuid.uuid4()
    monkeypatch.setattr(stage, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=own)))
    monkeypatch.setattr(stage, "end_with", end_with)
    monkeypatch.setattr(stage, "carry_out", carry_out)
    monkeypatch.setattr(stage, "answer", lambda done, run: watched.append(f"answered {done.stage} on {run}"))
    stage.stage.fn(ORDER | {"parents": ("a", "b")})
    answered = [f"answered admit on {own}", f"answered prepare on {own}"]
    assert watched == [str(own), "a", "b", "whether it was given up", *answered]


def test_an_error_is_answered_before_it_is_raised_and_ends_the_order(monkeypatch):
    told = []

    def carry_out(_order, _clone, _given_up):
        yield Done("admit", False, None, "too many bad rows", "DataError")
        raise AssertionError("nobody goes on after an error")

    monkeypatch.setattr(stage, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=uuid.uuid4())))
    monkeypatch.setattr(stage, "end_with", lambda *_runs: contextlib.nullcontext())
    monkeypatch.setattr(stage, "carry_out", carry_out)
    monkeypatch.setattr(stage, "answer", lambda done, _run: told.append(done.error))
    with pytest.raises(DataError, match="too many bad rows"):
        stage.stage.fn(ORDER)
    assert told == ["too many bad rows"]
