"""What happens on a Prefect server reaches a webhook and a mailbox: event, automation, deployment, worker, Apprise.

One server and two workers for the whole file. The run that is to be found dead is killed first, so that the others
pass while its heartbeat is waited for.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import psutil
import pytest
import yaml
from databases import postgres_server, with_prefects_tables
from pools import prefect_server as server_of_its_own
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from receivers import awaited, mailbox, webhook
from workspaces import BIN, ROOT

from stillhouse.errors import ParamsError
from tasks import automations
from tasks.stack_programs import POLLING

pytestmark = [pytest.mark.slow, pytest.mark.services]

SECRET = "s3cret-of-the-webhook"

PROBES = """
import os, signal, time
from prefect import flow
from stillhouse.errors import DataError

@flow(name="scheduled", persist_result=False)
def scheduled(how: str = "sleeps"):
    if how == "stops":
        raise DataError("rows must be <whole>, found 3 & more")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
"""

EMIT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tasks.events import tell_of_decision
verdict = SimpleNamespace(student="gru", reason="lost 3.1 % of <NDCG@10> & must not lose 2 %")
assert tell_of_decision(Path.cwd(), "2026-03-03", SimpleNamespace(chosen=None, champion=4, verdicts=[verdict]))
"""


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory):
    """A server for this file alone, whose automations would judge other tests' runs, on PostgreSQL as the served one.

    On SQLite, Prefect's automations lose an event that comes while another one is written.
    """
    folder = tmp_path_factory.mktemp("server")
    database = postgres_server(folder)
    try:
        server = server_of_its_own(folder, with_prefects_tables(database, os.environ)).start()
        yield server.url
        server.kill()
    finally:
        database.cleanup()


@pytest.fixture(scope="module")
def station(prefect_server, tmp_path_factory):
    """Pools, deployments, automations, receivers and two workers; one of them and its run are dead already."""
    root = tmp_path_factory.mktemp("station")
    shutil.copytree(ROOT / "deploy", root / "deploy")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["alerts"]["max_late_hours"] = 1e-6
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "probes.py").write_text(PROBES)
    with contextlib.ExitStack() as stack:
        web, mail = stack.enter_context(webhook()), stack.enter_context(mailbox())
        stack.enter_context(temporary_settings({PREFECT_API_URL: prefect_server}))
        one = SimpleNamespace(root=root, web=web, mail=mail, url=prefect_server)
        one.client = stack.enter_context(get_client(sync_client=True))
        one.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "STILLHOUSE_"))},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT, root))),
            "PREFECT_API_URL": prefect_server,
            "PREFECT_HOME": str(root / ".prefect"),
            **POLLING,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "DO_NOT_TRACK": "1",
            "STILLHOUSE_ALERT_URLS": f"json://me:{SECRET}@127.0.0.1:{web.port}/in "
            f"mailto://127.0.0.1:{mail.port}?from=still@house.example&to=call@house.example&mode=insecure&format=text",
        }
        for pool, limit in {"alerts": None, "night": 1, "unstaffed": None}.items():
            one.client.create_work_pool(WorkPoolCreate(name=pool, type="process", concurrency_limit=limit))
        deploy(one, "alert", "alert", "flows.alert.alert", "alerts")
        deploy(one, "alert", "by-cpu", "flows.alert.alert", "alerts")
        file = root / automations.FILE
        file.write_text(file.read_text().replace("within: 600", "within: 20"))
        deploy(one, "watch", "watch", "flows.watch.watch", "alerts")
        deploy(one, "scheduled", "on-alerts", "probes.scheduled", "alerts")
        one.night = deploy(one, "scheduled", "on-night", "probes.scheduled", "night")
        one.began = time.time()
        deploy(one, "scheduled", "nightly", "probes.scheduled", "unstaffed", cron="* * * * *")
        one.applied = automations.apply(root)
        stack.callback(kill, worker(one, "alerts"))
        one.dead = kill_with_its_worker(one)
        yield one


def deploy(one, flow, name, entrypoint, pool, cron=None):
    flow_id = one.client.create_flow_from_name(flow)
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(one.root)}}]
    schedules = [DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone="UTC"))] if cron else None
    return one.client.create_deployment(
        flow_id, name, entrypoint=entrypoint, work_pool_name=pool, pull_steps=steps, schedules=schedules
    )


def worker(one, pool):
    with (one.root / f"{pool}.log").open("w") as log:
        return subprocess.Popen(
            [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--name", pool],
            cwd=one.root,
            env=one.environment,
            stdout=log,
            stderr=log,
        )


def kill(process):
    """Kill a process and all that it started: nothing of it can report anything."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
    process.wait()


def kill_with_its_worker(one):
    """Start a run on the pool of one slot, kill it and its worker once it lives; another run waits for the slot."""
    process = worker(one, "night")
    try:
        run = one.client.create_flow_run_from_deployment(one.night)
        awaited(lambda: state(one, run).name == "Running", "the run that is to die begins")
        awaited(lambda: events(one, "prefect.flow-run.heartbeat", f"prefect.flow-run.{run.id}"), "its first heartbeat")
    finally:
        kill(process)
    died = datetime.now(UTC)
    waiting = one.client.create_flow_run_from_deployment(one.night)
    return SimpleNamespace(run=run, died=died, waiting=waiting, held=may_start(one, "night"))


def state(one, run):
    return one.client.read_flow_run(run.id).state


def events(one, event, resource):
    query = {"filter": {"event": {"name": [event]}, "resource": {"id": [resource]}}}
    return httpx.post(f"{one.url}/events/filter", json=query).raise_for_status().json()["events"]


def may_start(one, pool):
    """The runs that a worker of the pool would be given now: none where its slots are taken."""
    given = httpx.post(f"{one.url}/work_pools/{pool}/get_scheduled_flow_runs", json={}).raise_for_status().json()
    return [each["flow_run"]["id"] for each in given]


def arrived(one, words):
    """Wait until both receivers have the alert whose title holds ``words``; (webhook, mail), each once."""

    def both():
        found = [[got for got in box.got if words in got["title"]] for box in (one.web, one.mail)]
        return all(found) and found

    hooks, mails = awaited(both, f"an alert {words!r} arrives")
    assert len(hooks) == len(mails) == 1
    return hooks[0], mails[0]


def test_an_event_of_a_night_arrives_as_webhook_and_as_mail(station):
    subprocess.run([sys.executable, "-c", EMIT], cwd=station.root, env=station.environment, check=True)
    hook, mail = arrived(station, "Night 2026-03-03: the gate refused every student (1 of 1)")
    for got in (hook, mail):
        assert "gru: lost 3.1 % of <NDCG@10> & must not lose 2 %" in got["message"]
        assert "The champion stands: version 4." in got["message"]
    assert mail["to"] == ["call@house.example"]


@pytest.mark.parametrize(
    ("how", "named", "words"),
    [
        ("stops", "Failed", "DataError: rows must be <whole>, found 3 & more"),
        pytest.param("dies", "Crashed", "exit", marks=pytest.mark.drill),  # one automation tells of either
    ],
)
def test_a_night_that_fails_or_crashes_alerts(station, how, named, words):
    (deployment,) = [one for one in station.client.read_deployments() if one.name == "on-alerts"]
    run = station.client.create_flow_run_from_deployment(deployment.id, parameters={"how": how})
    hook, mail = arrived(station, f"scheduled run {run.name}: {named}")
    assert words in hook["message"]
    assert words in mail["message"]
    assert str(run.id) in hook["message"]


def test_a_night_that_no_worker_took_is_told_of_by_the_watch(station):
    time.sleep(max(0.0, 61 - (time.time() - station.began)))  # at least one minute's night is overdue
    (deployment,) = [one for one in station.client.read_deployments() if one.name == "watch"]
    station.client.create_flow_run_from_deployment(deployment.id)
    hook, _ = arrived(station, "scheduled night")
    assert "UTC: its run is" in hook["message"]


def test_a_night_that_waits_for_a_worker_is_told_of_where_the_pool_of_nights_has_none(station):
    hooks = awaited(lambda: [got for got in station.web.got if "No worker takes" in got["title"]], "it is told of")
    assert "stillhouse stack status" in hooks[0]["message"]


SEND = """
from flows.alert import alert
ended = alert("A title", "A body", return_state=True)
print(ended.message if ended.is_failed() else ended.result())
"""


def send(one, **environment):
    """Run the flow ``alert`` in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SEND],
        cwd=one.root,
        env={**one.environment, "PREFECT_LOGGING_LEVEL": "DEBUG", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_a_receiver_that_comes_back_has_the_alert_and_the_other_has_it_once(station):
    with webhook(refusals=1) as first, webhook() as second:
        urls = [f"json://me:{SECRET}@127.0.0.1:{one.port}" for one in (first, second)]
        printed = send(station, STILLHOUSE_ALERT_URLS=" ".join(urls))
    assert str([f"json://127.0.0.1:{one.port}" for one in (first, second)]) in printed
    assert len(first.got) == len(second.got) == 1
    assert SECRET not in printed


def test_an_alert_without_a_target_fails_with_one_line(station):
    assert "STILLHOUSE_ALERT_URLS must hold an Apprise URL" in send(station, STILLHOUSE_ALERT_URLS=" ")


@pytest.mark.drill  # two minutes of waiting; the drill of three nights, which CI runs, meets the same death
def test_a_run_that_died_with_its_worker_crashes_within_two_minutes_and_frees_its_slot(station):
    dead = station.dead
    assert dead.held == []
    awaited(lambda: state(station, dead.run).name == "Crashed", "the dead run crashes", 125)
    assert (state(station, dead.run).timestamp - dead.died).total_seconds() < 120
    assert may_start(station, "night") == [str(dead.waiting.id)]
    hook, _ = arrived(station, f"scheduled run {dead.run.name}: Crashed")
    assert "its heartbeat stopped" in hook["message"]


def test_no_secret_of_a_target_is_in_the_workers_output_or_on_the_server(station):
    logs = httpx.post(f"{station.url}/logs/filter", json={"limit": 200}).raise_for_status().text
    assert f"sent to json://127.0.0.1:{station.web.port}, mailto://127.0.0.1:{station.mail.port}" in logs
    assert SECRET not in logs
    assert SECRET not in (station.root / "alerts.log").read_text()


@pytest.fixture
def bare(prefect_server, tmp_path):
    """A folder with the automations' file, and a client of a server on which the alert is deployed."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
        for name in ("alert", "by-cpu"):
            client.create_deployment(client.create_flow_from_name("alert"), name, entrypoint="flows.alert.alert")
        yield SimpleNamespace(root=tmp_path, client=client, file=tmp_path / automations.FILE)


def names(client):
    return sorted(one.name for one in client.read_automations())


def test_automations_follow_their_file_and_a_second_time_changes_nothing(bare):
    automations.apply(bare.root)
    wanted = sorted(one["name"] for one in yaml.safe_load(bare.file.read_text())["automations"])
    assert names(bare.client) == wanted
    before = {one.id: one for one in bare.client.read_automations()}
    assert automations.apply(bare.root) == []
    assert {one.id: one for one in bare.client.read_automations()} == before
    muted = bare.client.read_automations()[0]
    bare.client.pause_automation(muted.id)
    bare.file.write_text(bare.file.read_text().replace("the champion is old", "an old champion").replace("90", "80"))
    assert sorted(line.split()[0] for line in automations.apply(bare.root)) == ["created", "removed", "updated"]
    assert "stillhouse: an old champion" in names(bare.client)
    assert "stillhouse: the champion is old" not in names(bare.client)
    still = [one for one in bare.client.read_automations() if one.name == muted.name]
    assert all(not one.enabled for one in still)


def test_an_automation_whose_deployment_is_missing_is_refused_by_name(bare):
    bare.file.write_text(bare.file.read_text().replace("alert/alert", "alert/elsewhere"))
    with pytest.raises(ParamsError, match="the deployment alert/elsewhere must be on the Prefect server"):
        automations.apply(bare.root)
