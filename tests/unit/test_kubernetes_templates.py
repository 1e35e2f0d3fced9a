"""The pools' job templates, as Prefect renders them and Kubernetes' own schema takes them. No cluster is needed."""

import asyncio
import json
import uuid
from pathlib import Path

import kubernetes_validate
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import find_placeholders
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from stillhouse.params.base import holds_secret

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
POOLS = ["night", "cpu", "gpu"]
#: The newest schema that the validator has.
VERSION = kubernetes_validate.latest_version()


def template(pool):
    return json.loads((FOLDER / f"{pool}.json").read_text())


def manifest(pool, **values):
    """The Job that Prefect's worker would create for one run."""
    nobody = PrefectClient("http://127.0.0.1:1/api")  # templates name no block: nothing is asked of a server
    made = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(template(pool), values, client=nobody))
    made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="night 2026-03-03"))
    return made.job_manifest


def parts(pool, **values):
    job = manifest(pool, **values)
    pod = job["spec"]["template"]["spec"]
    return job, pod, pod["containers"][0]


def test_each_pool_has_its_template_and_no_other_is_there():
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == sorted(POOLS)


@pytest.mark.parametrize("pool", POOLS)
def test_the_job_made_of_the_defaults_is_one_that_kubernetes_takes(pool):
    kubernetes_validate.validate(manifest(pool), VERSION, strict=True)


def test_the_validator_would_see_a_job_that_kubernetes_refuses():
    broken = manifest("cpu")
    broken["spec"]["template"]["spec"]["parallelism"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize("pool", POOLS)
def test_the_prefect_server_takes_the_template_and_its_defaults(pool):
    taken = WorkPoolCreate(name=pool, type="kubernetes", base_job_template=template(pool))
    variables = taken.base_job_template["variables"]
    defaults = {name: one["default"] for name, one in variables["properties"].items() if "default" in one}
    assert validate(defaults, variables) == []
    assert validate({**defaults, "cpu_limit": 4}, variables) != []


@pytest.mark.parametrize("pool", POOLS)
def test_every_placeholder_is_a_variable_and_every_variable_is_used(pool):
    read = template(pool)
    used = {one.name for one in find_placeholders(read["job_configuration"])}
    assert used == set(read["variables"]["properties"])


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_runs_once_and_goes_after_a_day(pool):
    spec = manifest(pool)["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["ttlSecondsAfterFinished"] == 86400


@pytest.mark.parametrize("pool", POOLS)
def test_resources_are_asked_for_and_limited_and_variables_change_them(pool):
    _, _, box = parts(pool)
    assert set(box["resources"]["requests"]) == {"cpu", "memory"}
    assert set(box["resources"]["limits"]) >= {"cpu", "memory"}
    values = {"cpu_request": "3", "cpu_limit": "5", "memory_request": "7Gi", "memory_limit": "9Gi"}
    _, _, box = parts(pool, **values)
    assert box["resources"]["requests"] == {"cpu": "3", "memory": "7Gi"}
    assert (box["resources"]["limits"]["cpu"], box["resources"]["limits"]["memory"]) == ("5", "9Gi")


@pytest.mark.parametrize("pool", POOLS)
def test_secrets_come_from_a_secret_by_name_and_no_value_stands_in_the_file(pool):
    _, _, box = parts(pool)
    assert box["envFrom"] == [{"secretRef": {"name": "stillhouse"}}]
    plain = {one["name"]: one["value"] for one in box["env"]}
    assert not any(holds_secret(f"{name}={value}") for name, value in plain.items())
    assert parts(pool, secret="another")[2]["envFrom"] == [{"secretRef": {"name": "another"}}]


@pytest.mark.parametrize("pool", POOLS)
def test_the_clone_is_mounted_where_the_run_works(pool):
    _, pod, box = parts(pool)
    assert pod["volumes"] == [{"name": "clone", "persistentVolumeClaim": {"claimName": f"stillhouse-{pool}"}}]
    assert box["volumeMounts"] == [{"name": "clone", "mountPath": "/workspace"}]
    assert box["workingDir"] == "/workspace"
    assert {"name": "STILLHOUSE_WORKSPACE", "value": "/workspace"} in box["env"]


def test_the_gpu_pool_asks_for_gpus_on_nodes_that_have_them():
    _, pod, box = parts("gpu")
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    job, _, box = parts("gpu", gpus=4)
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 4
    kubernetes_validate.validate(job, VERSION, strict=True)


@pytest.mark.parametrize("pool", ["night", "cpu"])
def test_the_other_pools_ask_for_no_gpu(pool):
    _, pod, box = parts(pool)
    assert "nvidia.com/gpu" not in box["resources"]["limits"]
    assert not pod.get("nodeSelector")
    assert not pod.get("tolerations")
