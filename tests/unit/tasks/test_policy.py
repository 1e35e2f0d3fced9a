import pytest

from stillhouse.errors import ParamsError
from tasks import policy
from tasks.policy import policy_of, slot


def free(resource, **compute):
    """How many stages of a resource could begin at once."""
    semaphore, taken = slot(resource, compute), 0
    while semaphore.acquire(blocking=False):
        taken += 1
    for _ in range(taken):
        semaphore.release()
    return taken


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The device file of a GPU, which is not there, on a machine of eight cores."""
    monkeypatch.setattr(policy, "_GPU", (tmp_path / "nvidiactl",))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    return tmp_path / "nvidiactl"


def test_without_a_gpu_heavy_stages_run_side_by_side_as_far_as_the_cores_go(gpu):
    assert free("gpu", device="auto", threads=1) == 8
    assert free("gpu", device="auto", threads=3) == 2
    assert free("gpu", device="cpu", threads=16) == 1
    assert free("cpu", device="auto", threads=3) == 8


def test_a_gpu_has_one_heavy_stage_at_a_time(gpu):
    assert free("gpu", device="cuda", threads=1) == 1
    gpu.touch()
    assert free("gpu", device="auto", threads=1) == 1
    assert free("gpu", device="cpu", threads=1) == 8
    assert slot("gpu", {"device": "auto"}) is slot("gpu", {"device": "cuda"})


def test_a_wrong_section_is_one_line(gpu):
    with pytest.raises(ParamsError, match="compute"):
        slot("gpu", {"threads": "many"})


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
