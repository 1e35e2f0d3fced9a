import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from stillhouse.errors import RegistryError
from stillhouse.tracking import store
from stillhouse.tracking.store import EXPERIMENT, connect


def test_the_connection_is_made_once_and_points_nobody_elsewhere(workspace):
    import mlflow

    before = mlflow.get_tracking_uri()
    assert connect(workspace) is connect(workspace)
    assert mlflow.get_tracking_uri() == before


def test_files_lie_below_the_workspace(workspace, client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment.artifact_location == str(workspace / ".stillhouse" / "artifacts")


def test_several_processes_may_touch_a_fresh_workspace_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys; from pathlib import Path; from stillhouse.tracking.runs import open_night_run;"
        "print(open_night_run(Path(sys.argv[1]), sys.argv[2]))"
    )

    def touch(night: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", code, str(tmp_path), str(night)]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(touch, range(2)))
    assert [one.stderr for one in done] == [""] * 2, "no process fails, and none is talkative"
    assert len({one.stdout for one in done}) == 2
    left = {path.name for path in (tmp_path / ".stillhouse").iterdir()}
    assert left <= {"mlflow.db", "mlflow.db.lock"}


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.store.tracking import sqlalchemy_store

    class Killed(BaseException):
        pass

    def half_made(uri, artifacts):
        (tmp_path / ".stillhouse").joinpath(uri.rpartition("/")[2]).write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy_store, "SqlAlchemyStore", half_made)
        with pytest.raises(Killed):
            connect(tmp_path)
    assert not (tmp_path / ".stillhouse" / "mlflow.db").exists()


def test_a_server_that_is_down_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(store, "_ANSWER_WITHIN", 0.6)
    with pytest.raises(RegistryError, match=f"the tracking server must answer, got .*127.0.0.1:{port}") as error:
        connect(tmp_path)
    assert "\n" not in str(error.value)


def test_a_database_of_another_version_is_one_line(tmp_path, monkeypatch):
    import sqlite3

    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('deadbeef')")
    database.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(RegistryError, match="the tracking store must let Stillhouse in"):
        connect(tmp_path)


def test_a_deleted_experiment_is_one_line(workspace, client):
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    store._open.clear()
    with pytest.raises(RegistryError, match=r"must be active, found it deleted.*mlflow experiments restore"):
        connect(workspace)
