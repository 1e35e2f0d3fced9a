"""A workspace with a real MLflow on SQLite: the database is made once a session and copied."""

import shutil

import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.tracking.store import connect


@pytest.fixture(scope="session")
def _template(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("tracking-template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        path = workspace / "mlflow.db"
        SqlAlchemyStore(f"sqlite:///{path}", str(workspace)).engine.dispose()
    return path


@pytest.fixture
def workspace(_template, tmp_path, monkeypatch):
    """A workspace whose tracking database is there and empty."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".stillhouse").mkdir()
    shutil.copyfile(_template, tmp_path / ".stillhouse" / "mlflow.db")
    return tmp_path


@pytest.fixture
def client(workspace):
    """MLflow's own client on the workspace's database."""
    return connect(workspace).client


@pytest.fixture
def registration(make_sequences, make_package):
    """The arguments of `register_student` after the workspace, but the run. After ``i2`` the package says ``i3``."""
    vocabulary, _ = make_sequences([[1, 2, 3], [2, 1, 4]])
    package = make_package(vocabulary, name="gru")
    return {
        "package": package,
        "night": "2026-03-12",
        "name": "gru",
        "digest": sha256_tree(package),
        "statement": b'{"about": "gru"}\n',
        "card": "# gru\n",
        "metrics": {"leave_one_out": {"ndcg_at_10": 0.25}, "time_window": None},
        "verdict": "passed",
        "reason": "the bound clears the margin",
        "histories": [["i1", "i2"], ["i3"]],
    }
