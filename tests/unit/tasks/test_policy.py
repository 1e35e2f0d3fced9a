import pytest

from stillhouse.errors import ParamsError
from tasks.policy import policy_of, slot


def test_one_heavy_stage_at_a_time():
    assert policy_of("gpu").slots == 1
    assert slot("gpu").acquire(blocking=False)
    assert not slot("gpu").acquire(blocking=False)
    slot("gpu").release()


def test_the_time_that_a_stage_may_take_to_begin_comes_from_the_environment(monkeypatch):
    assert policy_of("gpu").start_seconds == 120
    monkeypatch.setenv("STILLHOUSE_START_SECONDS", "900")
    assert policy_of("gpu").start_seconds == 900
    monkeypatch.setenv("STILLHOUSE_START_SECONDS", "soon")
    with pytest.raises(ParamsError, match="STILLHOUSE_START_SECONDS must be a whole number of seconds"):
        policy_of("gpu")


def test_an_unknown_resource_names_the_known_ones():
    with pytest.raises(ParamsError, match="resource must be one of cpu, gpu"):
        policy_of("tpu")
