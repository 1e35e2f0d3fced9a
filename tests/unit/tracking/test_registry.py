import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.tracking import aliases, registry
from stillhouse.tracking.registry import (
    STUDENT,
    TEACHER,
    download,
    read_statement,
    register_student,
    register_teacher,
    version_of,
    versions,
)
from stillhouse.tracking.runs import open_night_run
from stillhouse.tracking.store import connect


class Killed(BaseException):
    """As SIGKILL between two steps: nothing catches it."""


@pytest.fixture
def register(workspace, registration):
    """Register the package of `registration`, with some of its arguments changed."""
    run = open_night_run(workspace, "2026-03-12")
    return lambda **changes: register_student(workspace, **{**registration, "run_id": run, **changes})


def _artifact(workspace, version):
    return Path(version_of(workspace, version).location)


def _live_models(workspace):
    store = connect(workspace)
    return store.client.search_logged_models([store.experiment_id])


def test_registering_twice_is_one_version(workspace, register):
    assert register() == register() == 1
    assert [one.version for one in versions(workspace)] == [1]
    assert len(_live_models(workspace)) == 1


def test_another_night_of_the_same_package_is_another_version(workspace, register):
    assert [register(), register(night="2026-03-13")] == [1, 2]
    assert [one.version for one in versions(workspace, night="2026-03-13")] == [2]


def test_a_version_says_what_it_is(workspace, register, registration):
    register()
    info = version_of(workspace, 1)
    assert (info.night, info.name, info.package) == ("2026-03-12", "gru", registration["digest"])
    assert (info.verdict, info.reason) == ("passed", "the bound clears the margin")
    assert info.run_id == open_night_run(workspace, "2026-03-12")
    assert info.tags["whole"] == "true"
    (model,) = _live_models(workspace)
    assert info.model_id == model.model_id
    assert {one.key: one.value for one in model.metrics} == {"leave_one_out.ndcg_at_10": 0.25}
    assert connect(workspace).client.get_model_version(STUDENT, "1").description == "# gru\n"


def test_of_a_long_card_the_registry_shows_what_its_tables_hold_and_the_files_all(workspace, register):
    card = "# gru\n" + "word " * 2_000
    register(card=card)
    shown = connect(workspace).client.get_model_version(STUDENT, "1").description
    assert len(shown) == 5_000, "VARCHAR(5000) on PostgreSQL; SQLite takes anything"
    assert card.startswith(shown[:-1])
    assert (_artifact(workspace, 1) / "README.md").read_text() == card


STEPS = [
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_any_two_steps_ends_with_one_whole_version(workspace, register, monkeypatch, step, when):
    from mlflow import MlflowClient

    plain = getattr(MlflowClient, step)

    def killed(*arguments, **named):
        if when == "after":
            plain(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, killed)
        with pytest.raises(Killed):
            register()
    version = register()
    assert [(one.version, one.tags["whole"]) for one in versions(workspace)] == [(version, "true")]
    assert len(_live_models(workspace)) == 1, "files of the killed attempt are taken up or deleted"
    assert download(workspace, version, workspace / "got").is_dir()


def test_two_writers_at_once_end_with_one_version(workspace, register, monkeypatch):
    plain, inner = registry._create, []

    def raced(*arguments):
        if not inner:  # another process registers the same between the look and the step
            inner.append(True)
            inner.append(register())
        plain(*arguments)

    monkeypatch.setattr(registry, "_create", raced)
    assert register() == inner[1] == 1
    assert [one.version for one in versions(workspace)] == [1]


def test_a_package_that_is_not_what_the_digest_says_is_refused(workspace, register):
    with pytest.raises(RegistryError, match="the package must hash to 000000000000, found"):
        register(digest="0" * 64)
    assert versions(workspace) == []


def test_the_artifact_holds_the_record_and_no_pickle(workspace, register, registration):
    folder = _artifact(workspace, register())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "README.md", "lineage.json", "input_example.json", "code/stillhouse_pyfunc.py"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib", ".pt", ".pyc"))]
    # a pickle of protocol 2 and later starts with 0x80 and ends with a full stop
    heads = {name: (folder / name).read_bytes() for name in files}
    assert not [name for name, data in heads.items() if data[:1] == b"\x80" and data.endswith(b".")]
    assert (folder / "lineage.json").read_bytes() == registration["statement"]
    assert sha256_tree(folder / "data" / "package") == registration["digest"]
    assert "cloudpickle" not in (folder / "MLmodel").read_text()


def test_requirements_are_pinned_and_hold_no_torch(workspace, register):
    lines = (_artifact(workspace, register()) / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    assert {line.partition("==")[0] for line in lines} == {"mlflow", "onnxruntime", "numpy", "pandas", "pyarrow"}


PREDICT = """
import json, sys, warnings
import mlflow.pyfunc, pandas as pd
warnings.simplefilter("error")
model = mlflow.pyfunc.load_model(sys.argv[1])
assert model.metadata.signature.inputs.input_names() == ["history"], model.metadata.signature
example = model.input_example
answer = model.predict(example, params={"k": 2})
cold = model.predict(pd.DataFrame({"history": [[]]}), params={"k": 1})
assert not {"torch", "stillhouse"} & set(sys.modules)
print(json.dumps([answer["items"].tolist(), cold["items"].tolist(), cold["kind"].tolist()]))
"""


def test_a_version_predicts_through_mlflow_without_torch_or_stillhouse(workspace, register):
    aliases.set_alias(workspace, "champion", register())
    env = {**os.environ, "MLFLOW_TRACKING_URI": connect(workspace).tracking.uri}
    command = [sys.executable, "-c", PREDICT, f"models:/{STUDENT}@champion"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=workspace)
    assert done.returncode == 0, done.stderr
    items, cold, kind = json.loads(done.stdout)
    assert items == [["i3", "i4"], ["i4", "i1"]]
    assert (kind, len(cold[0])) == (["popular"], 1)


def test_a_download_is_the_package_byte_for_byte(workspace, register, registration):
    got = download(workspace, register(), workspace / "previous" / "champion")
    assert sha256_tree(got) == registration["digest"]


def test_altered_files_are_not_handed_out(workspace, register):
    folder = _artifact(workspace, register())
    (folder / "data" / "package" / "package.json").write_text("{}")
    (folder / "lineage.json").write_text("{}")
    with pytest.raises(RegistryError, match="the package of version 1 must hash to"):
        download(workspace, 1, workspace / "got")
    assert not (workspace / "got").exists()
    with pytest.raises(RegistryError, match=r"lineage\.json of version 1 must hash to"):
        read_statement(workspace, 1)


def test_the_statement_comes_back_as_it_went_in(workspace, register, registration):
    assert read_statement(workspace, register()) == registration["statement"]


def test_files_that_are_gone_are_one_line(workspace, register):
    shutil.rmtree(_artifact(workspace, register()))
    with pytest.raises(RegistryError, match="the files of version 1 must be there"):
        download(workspace, 1, workspace / "got")


def test_a_version_that_is_not_there_lists_those_that_are(workspace, register):
    with pytest.raises(RegistryError, match="version must be one of none; got 4"):
        version_of(workspace, 4)
    register()
    with pytest.raises(RegistryError, match="version must be one of 1; got 4"):
        version_of(workspace, 4)


def test_a_champion_is_what_the_alias_names(workspace, register):
    assert registry.champion(workspace) is None
    version = register()
    assert registry.champion(workspace) is None
    aliases.set_alias(workspace, "champion", version)
    assert registry.champion(workspace) == version_of(workspace, version)


@pytest.fixture
def register_one(workspace):
    """Register a teacher, with some of its arguments changed."""
    run = open_night_run(workspace, "2026-03-12")
    given = {
        "night": "2026-03-12",
        "digest": "c" * 64,
        "md5": "0123.dir",
        "statement": b'{"about": "the teacher"}\n',
        "card": "# Teacher\n",
        "metrics": {"leave_one_out": {"ndcg_at_10": 0.5}},
        "reason": "better than popularity",
        "facts": {"start": "cold"},
        "run_id": run,
    }
    return lambda **changes: register_teacher(workspace, **{**given, **changes})


def test_teachers_and_students_are_numbered_apart_and_never_mixed(workspace, register, register_one):
    assert [register(), register_one(), register_one(night="2026-03-13"), register()] == [1, 1, 2, 1]
    assert [one.name for one in versions(workspace)] == ["gru"]
    assert [one.night for one in versions(workspace, model=TEACHER)] == ["2026-03-12", "2026-03-13"]
    student, teacher = version_of(workspace, 1), version_of(workspace, 1, TEACHER)
    assert (student.label, teacher.label) == ("version 1", "teacher version 1")
    assert (teacher.package, teacher.tags["md5"], teacher.tags["start"]) == ("c" * 64, "0123.dir", "cold")
    assert (teacher.name, teacher.verdict, teacher.reason) == ("teacher", "passed", "better than popularity")
    with pytest.raises(RegistryError, match=r"version must be one of 1, 2; got 3 \(registered model teacher"):
        version_of(workspace, 3, TEACHER)


def test_a_teachers_version_keeps_its_record_and_figures_and_no_weights(workspace, register_one):
    version = register_one(envelope=b"{}")
    folder = Path(version_of(workspace, version, TEACHER).location)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"README.md", "lineage.json", "lineage.dsse.json", "metrics.json"}
    assert read_statement(workspace, version, TEACHER) == b'{"about": "the teacher"}\n'
    assert registry.read_envelope(workspace, version, TEACHER) == b"{}"
    assert json.loads((folder / "metrics.json").read_text()) == {"leave_one_out": {"ndcg_at_10": 0.5}}
    (model,) = _live_models(workspace)
    assert {one.key: one.value for one in model.metrics} == {"leave_one_out.ndcg_at_10": 0.5}


def test_an_altered_record_of_a_teacher_is_not_handed_out(workspace, register_one):
    folder = Path(version_of(workspace, register_one(), TEACHER).location)
    (folder / "lineage.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"lineage\.json of teacher version 1 must hash to"):
        read_statement(workspace, 1, TEACHER)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_while_a_teacher_is_registered_ends_with_one_whole_version(workspace, register_one, monkeypatch, step):
    from mlflow import MlflowClient

    plain = getattr(MlflowClient, step)

    def killed(*arguments, **named):
        plain(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, killed)
        with pytest.raises(Killed):
            register_one()
    version = register_one()
    found = versions(workspace, model=TEACHER)
    assert [(one.version, one.tags["whole"]) for one in found] == [(version, "true")]
    assert len(_live_models(workspace)) == 1
    assert read_statement(workspace, version, TEACHER)


def test_a_student_names_the_teacher_that_taught_it(workspace, register, register_one):
    register(teacher=register_one())
    assert version_of(workspace, 1).tags["teacher"] == "1"
