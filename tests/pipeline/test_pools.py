"""A night over two workers in two clones that share nothing but DVC's remote and the servers."""

import json
import shutil
import subprocess
import sys

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pools import Pools, free_port, kill_tree, mlflow_server, wait_for
from workspaces import TINY, make_workspace

from stillhouse.lineage.record import BY_NATURE

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

#: Keys of a store that exists for this test alone.
S3 = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

#: Content that nothing names.
JUNK = "nights/files/md5/ab/cdef0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def bucket():
    """An S3 store (moto's server) with one empty bucket: its address."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    address = f"http://127.0.0.1:{port}"
    _store(address).create_bucket(Bucket="stillhouse")
    yield address
    server.stop()


def _store(address):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=address, **keys)


def _keys(address):
    pages = _store(address).get_paginator("list_objects_v2").paginate(Bucket="stillhouse")
    return {one["Key"] for page in pages for one in page["Contents"]}


@pytest.fixture(scope="module")
def pools(tmp_path_factory, prefect_server):
    folder = tmp_path_factory.mktemp("pools")
    tracking = mlflow_server(folder / "mlflow").start()
    one = Pools(make_workspace(folder / "workspace", TINY), folder, prefect_server, tracking.url, S3)
    try:
        one.deploy()
        for pool in ("cpu", "gpu"):
            one.start_worker(pool, one.clone(pool))
        yield one
    finally:
        one.stop()
        tracking.kill()


def _outputs(lock):
    """Every deterministic output, by path: what it hashes to."""
    natural = ("runs/", "timings/", "reports/data_docs")
    return {
        out["path"]: out["md5"]
        for stage in lock.values()
        for out in stage["outs"]
        if not out["path"].startswith(natural)
    }


@pytest.fixture(scope="module")
def first(pools, bucket):
    """The first night, through S3: what it printed, and its ``dvc.lock``."""
    _use(pools, [["url", "s3://stillhouse/nights"], ["endpointurl", bucket]])
    return pools.run("run").stdout, pools.workspace.lock()


def test_a_night_over_two_clones_and_s3_makes_the_embedded_nights_bytes(pools, first, template, bucket):
    said, lock = first
    assert "small (version 1) promoted" in said
    assert _outputs(lock) == _outputs(template.lock())
    assert {"run", "timings", "data_docs"} <= set(BY_NATURE), "what is left out above is what differs by nature"
    heavy = {name for name, stage in _pools_of(pools).items() if stage == "gpu"}
    assert heavy == {"train_teacher", "check_teacher", "export_soft_targets", "train_student@small"}
    for name in ("cpu", "gpu"):
        site = pools.folder / name / ".stillhouse" / "sites" / "2026-03-02"
        assert (site / "models" / "teacher").exists() == (name == "gpu"), "each clone made its own and no more"
    names = _keys(bucket)
    assert any(name.startswith("nights/files/md5/") for name in names)
    assert any(name.startswith("nights/stillhouse/nights/2026-03-02/open-") for name in names)
    audited = pools.run("audit", "student@champion", "--json")
    assert json.loads(audited.stdout)["state"] == "verified"
    assert sorted(_runs(pools, "2026-03-02")) == [
        "ingest, validate, admit, prepare, evaluate_champion",
        "package@small, evaluate@small",
        "train_teacher, check_teacher, export_soft_targets, train_student@small",
    ], "what follows on the same pool goes to the worker that is there already"
    runs = _runs(pools, "2026-03-02")
    light, heavy = (next(run for name, run in runs.items() if stage in name) for stage in ("ingest", "train_teacher"))
    assert light[2] < heavy[2], "the champion is evaluated at once: a CPU stage waits for no GPU stage"
    assert _left_open(pools) == [], "each attempt's run has ended"


@pytest.mark.drill
def test_a_night_in_s3_is_made_again_and_what_it_needs_outlives_a_collection_there(pools, first, bucket):
    again = json.loads(pools.run("reproduce", "student@1", "--json").stdout)
    assert again["identical"] is True
    states = {one["path"]: one["state"] for one in again["outputs"]}
    assert states["models/teacher"] == states["packages/small"] == "identical"
    before = _keys(bucket)
    _store(bucket).put_object(Bucket="stillhouse", Key=JUNK, Body=b"nobody's")
    told = json.loads(pools.run("gc", "--remote", "--json").stdout)
    assert {one["place"]: one["count"] for one in told["freed"]}["remote"] == 1
    assert _keys(bucket) == before
    cache, aside = (pools.workspace.root / ".dvc" / "cache" / name for name in ("files", "aside"))
    cache.rename(aside)
    try:
        assert json.loads(pools.run("audit", "student@champion", "--json").stdout)["state"] == "verified"
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        aside.rename(cache)


@pytest.mark.drill
def test_the_next_night_goes_through_a_folder(pools, first, second):
    _use(pools, [["url", str(pools.workspace.root / ".stillhouse" / "remote")]])
    pools.run("run", "--as-of", "2026-03-03")
    assert _outputs(pools.workspace.lock()) == _outputs(second.workspace.lock())


@pytest.mark.drill
def test_students_take_turns_on_the_one_gpu_while_cpu_stages_go_on(pools, first, template):
    small = template.params()["students"]["small"]
    before = (pools.workspace.root / "params.yaml").read_text()
    pools.workspace.set({"students": {"small": small, "other": small}})
    try:
        pools.run("run", "--as-of", "2026-03-03T12:00", "--force")
    finally:
        (pools.workspace.root / "params.yaml").write_text(before)
    runs = _runs(pools, "2026-03-03T120000")
    heavy = [run for run in runs.values() if run[0] == "gpu"]
    light = [run for run in runs.values() if run[0] == "cpu"]
    assert len(heavy) >= 2
    assert not [(a, b) for a in heavy for b in heavy if a is not b and _beside(a, b)], "the pool has one slot"
    assert [(a, b) for a in heavy for b in light if _beside(a, b)]


def _use(pools, options):
    """Point the workspace and its clones at another remote, of which nothing of the one before stays."""
    lines = [f"    {name} = {value}" for name, value in options]
    for clone in (pools.workspace.root, pools.folder / "cpu", pools.folder / "gpu"):
        (clone / ".dvc" / "config.local").write_text("\n".join(["['remote \"local\"']", *lines, ""]))


def _pools_of(pools):
    """Stage → the pool that it was performed on, as the Prefect server has it."""
    code = (
        "import json\n"
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    runs = [run for run in client.read_flow_runs() if run.work_pool_name in ('cpu', 'gpu')]\n"
        "    print(json.dumps({name: run.work_pool_name for run in runs "
        "for name in run.name.partition(': ')[2].split(', ')}))\n"
    )
    return json.loads(pools.python(code))


def _left_open(pools):
    """Stages whose tracking runs are still running."""
    code = (
        "import json, mlflow\n"
        "found = mlflow.MlflowClient().search_runs(\n"
        "    [one.experiment_id for one in mlflow.MlflowClient().search_experiments()],\n"
        "    \"attributes.status = 'RUNNING'\",\n"
        ")\n"
        "print(json.dumps([run.data.tags.get('stage') for run in found]))\n"
    )
    return json.loads(pools.python(code).splitlines()[-1])


def _runs(pools, night):
    """Stages that one worker's run performed → (pool, when the run began, when it ended), of one night."""
    code = (
        "import json, time\n"
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    while True:\n"  # the night ends with the last answer, a moment before the run that gave it
        f"        runs = [run for run in client.read_flow_runs() if run.name.startswith({night + ': '!r})]\n"
        "        if all(run.end_time for run in runs): break\n"
        "        time.sleep(0.2)\n"
        "    told = {run.name.partition(': ')[2]: [run.work_pool_name, run.start_time.timestamp(), "
        "run.end_time.timestamp()] for run in runs}\n"
        "    print(json.dumps(told))\n"
    )
    return json.loads(pools.python(code))


def _beside(one, other):
    return one[1] < other[2] and other[1] < one[2]


@pytest.mark.drill  # CI lets the worker's side refuse it, tests/unit/tasks/test_worksite.py
def test_a_worker_of_other_code_is_refused_in_one_line(pools, first):
    changed = pools.folder / "cpu" / "tasks" / "order.py"
    before = changed.read_text()
    changed.write_text(before + "\n# not the night's\n")
    try:
        done = pools.run("run", "--as-of", "2026-03-04", code=2)
    finally:
        changed.write_text(before)
    assert "a worker must run the night's own code" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr


@pytest.mark.drill  # a worker that has gone counts as there for a minute
def test_a_pool_without_a_worker_is_one_line_and_not_a_wait_for_ever(pools, first):
    worker = pools.workers.pop("cpu")
    kill_tree(worker.pid)
    worker.wait()
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "import tasks.policy as policy\n"
        "for name, one in policy._POLICIES.items():\n"
        "    policy._POLICIES[name] = replace(one, pickup_seconds=3.0)\n"
        "sys.argv = ['stillhouse', 'run', '--as-of', '2026-03-04']\n"
        "from stillhouse.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=pools.workspace.root,
        env={**pools.environment(pools.workspace.root), "STILLHOUSE_POOLS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, said = done.communicate(timeout=300)
    assert done.returncode == 2
    assert "pool cpu must have a worker, found none at work" in said
    states = wait_for(lambda: _cancelled(pools), "the stage that nobody took is given up")
    assert states


def _cancelled(pools):
    code = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    print([run.name for run in client.read_flow_runs() if run.state_name in ('Cancelling', 'Cancelled')])\n"
    )
    return "2026-03-04: ingest" in pools.python(code)
