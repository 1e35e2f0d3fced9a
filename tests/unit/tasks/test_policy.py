import pytest

from stillhouse.errors import ParamsError
from tasks.policy import policy_of, slot


def test_one_heavy_stage_at_a_time():
    assert policy_of("gpu").slots == 1
    assert slot("gpu").acquire(blocking=False)
    assert not slot("gpu").acquire(blocking=False)
    slot("gpu").release()


def test_an_unknown_resource_names_the_known_ones():
    with pytest.raises(ParamsError, match="resource must be one of cpu, gpu"):
        policy_of("tpu")
