"""dvc.yaml against the code: every stage declares what it runs on, and gets what it takes."""

import inspect
import re

import pytest
import yaml

from stillhouse.params.document import STAGE_PARAMS
from stillhouse.runner.closure import import_closure, package_root
from stillhouse.runner.stage import load_stage

ROOT = package_root().parent
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage):
    return GRAPH[stage].get("do", GRAPH[stage])


def paths_of(entries):
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def bindings(stage):
    words = definition(stage)["cmd"].split()
    assert words[:2] == ["stillhouse", "stage"]
    return words[2], dict(word.split("=", 1) for word in words[3:])


def test_every_stage_of_the_graph_is_in_the_code_and_the_other_way_round():
    assert set(GRAPH) == set(STAGE_PARAMS)


@pytest.mark.parametrize("stage", GRAPH)
def test_code_deps_are_exactly_the_import_closure_of_the_stages_function(stage):
    function, _ = load_stage(stage)
    declared = {dep for dep in definition(stage)["deps"] if dep.endswith(".py")}
    closure = {f"src/{file}" for file in import_closure(function.__module__)}
    assert closure - declared == set(), "run `make deps`"
    assert declared - closure == set(), "run `make deps`"


@pytest.mark.parametrize("stage", GRAPH)
def test_command_names_every_path_of_the_stage_and_no_other(stage):
    name, given = bindings(stage)
    assert name == (f"{stage}@${{key}}" if "foreach" in GRAPH[stage] else stage)
    node = definition(stage)
    declared = (
        {dep for dep in node["deps"] if not dep.endswith(".py")} | paths_of(node["outs"]) | paths_of(node["metrics"])
    )
    assert set(given.values()) == declared


@pytest.mark.parametrize("stage", GRAPH)
def test_function_takes_exactly_the_paths_of_its_command(stage):
    function, model = load_stage(stage)
    parameters = inspect.signature(function).parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    _, given = bindings(stage)
    assert set(parameters) - {"params", "reporter", "resume"} == set(given) - {"metrics", "run"}
    assert parameters["params"].annotation in (model.__name__, model)


@pytest.mark.parametrize("stage", GRAPH)
def test_params_of_the_graph_are_those_of_the_stages_model(stage):
    _, model = load_stage(stage)
    entries = definition(stage)["params"]
    plain = {entry for entry in entries if isinstance(entry, str)}
    night = {key for entry in entries if isinstance(entry, dict) for key in entry["night.yaml"]}
    own = {model.section} if set(model.model_fields) - {*model.shared, *model.night, "student"} else set()
    instance = {f"{model.instances}.${{key}}"} if model.instances else set()
    assert plain == own | set(model.shared) | instance
    assert night == set(model.night)


def test_what_differs_by_nature_is_no_stages_dependency():
    deps = {dep for stage in GRAPH for dep in definition(stage)["deps"]}
    assert not [dep for dep in deps if re.match(r"runs/|timings/|reports/data_docs", dep)]


@pytest.mark.parametrize("stage", GRAPH)
def test_every_setting_of_a_stage_is_read_by_its_code(stage):
    """Each field's name appears as an attribute of ``params`` somewhere in the stage's own import closure."""
    function, model = load_stage(stage)
    code = "\n".join(
        (package_root() / file).read_text() for file in import_closure(function.__module__) if "/params/" not in file
    )
    unread = [field for field in model.model_fields if not re.search(rf"\.{field}\b", code)]
    assert unread == []
