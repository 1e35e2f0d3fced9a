"""Two pins are mandatory and nothing else would notice: list endpoints and the scheduler of a real Prefect server."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.services

SMOKE = """
import asyncio
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule

async def main():
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name="smoke", type="process"))
        print("smoke" in [pool.name for pool in await client.read_work_pools()])
        flow = await client.create_flow_from_name("smoke")
        schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * *"), active=True)
        made = await client.create_deployment(flow, "nightly", schedules=[schedule], work_pool_name="smoke")
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[made]))
        for _ in range(90):
            runs = await client.read_flow_runs(deployment_filter=chosen)
            if runs:
                print(sorted({run.state_name for run in runs}))
                return
            await asyncio.sleep(1)
        print("the schedule yielded no run")

asyncio.run(main())
"""


def test_work_pools_are_listed_and_a_cron_deployment_yields_scheduled_runs(prefect_server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SMOKE],
        env={**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["True", "['Scheduled']"], done.stdout + done.stderr
