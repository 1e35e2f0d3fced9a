import subprocess
import sys

import pytest

from stillhouse.errors import RegistryError
from stillhouse.tracking.settings import tracking_of


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_default_is_a_database_inside_the_workspace(tmp_path):
    tracking = tracking_of(tmp_path)
    assert tracking.embedded
    assert tracking.database == tmp_path.resolve() / ".stillhouse" / "mlflow.db"
    assert tracking.artifacts == str(tmp_path.resolve() / ".stillhouse" / "artifacts")
    assert tracking.ui == f"mlflow ui --backend-store-uri sqlite:///{tracking.database}"
    assert not (tmp_path / ".stillhouse").exists(), "asking where it is makes nothing"


def test_the_environment_names_another_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    tracking = tracking_of(tmp_path)
    assert (tracking.uri, tracking.artifacts, tracking.embedded) == ("http://127.0.0.1:5000", None, False)
    assert tracking.ui == "http://127.0.0.1:5000"


def test_a_password_in_the_uri_is_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://anna:secret@db:5432/mlflow")
    tracking = tracking_of(tmp_path)
    assert tracking.shown == "postgresql://db:5432/mlflow"
    assert "secret" not in tracking.ui


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://anna:sec/ret@db:5432/mlflow", "postgresql://***"),
        ("postgresql://db/mlflow?password=sec", "postgresql://***"),
        ("mssql+pyodbc://anna:sec@db/mlflow?sslpassword=sec", "mssql+pyodbc://***"),
        ("postgresql://anna@db/mlflow", "postgresql://anna@db/mlflow"),
    ],
)
def test_a_password_is_not_shown_wherever_it_stands_in_the_uri(tmp_path, monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_of(tmp_path).shown == shown


@pytest.mark.parametrize("uri", ["postgers://anna:secret@db/mlflow", "anna:secret@db", "ftp://db?password=secret"])
def test_a_refused_uri_is_not_repeated_with_its_password(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(RegistryError, match=r"got '.*\*\*\*' \(environment\)") as caught:
        tracking_of(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "databricks"])
def test_a_store_that_keeps_no_registry_is_refused(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(RegistryError, match="must be http\\(s\\) or a database URL"):
        tracking_of(tmp_path)


def test_importing_tracking_loads_neither_mlflow_nor_torch():
    modules = ["settings", "store", "runs", "registry", "aliases", "ledger_store", "artifact"]
    code = f"import sys\nfor m in {modules}: __import__('stillhouse.tracking.' + m)\n"
    code += "assert not {'mlflow', 'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


HOOK = """
import os, sys
from pathlib import Path

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            assert os.environ.get("MLFLOW_DISABLE_TELEMETRY") == "true", "imported before it was told to be quiet"

sys.meta_path.insert(0, Watch())
from stillhouse.tracking import ledger_store
ledger_store.read(Path(sys.argv[1]))
assert "mlflow" in sys.modules and "torch" not in sys.modules
"""


def test_mlflow_is_told_to_be_quiet_before_it_is_imported(workspace, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    subprocess.run([sys.executable, "-W", "error", "-c", HOOK, str(workspace)], check=True)
