"""Workspaces for whole nights, made once a session and copied for each test."""

import shutil

import filelock
import pytest
from workspaces import TINY, Workspace, clone, make_workspace


@pytest.fixture(scope="session")
def template(tmp_path_factory, worker_id):
    """A workspace in which one tiny night has closed; made once for all workers."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    root = shared / "template"
    with filelock.FileLock(str(root) + ".lock"):
        if not (shared / "template.ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            workspace = make_workspace(root, TINY)
            first = workspace.run("run")
            (shared / "template.ready").write_text(first.out)
    return Workspace(root.resolve())


@pytest.fixture
def first_table(template):
    """What the template's night printed."""
    return (template.root.parent / "template.ready").read_text()


@pytest.fixture
def closed(template, tmp_path):
    """A copy of the workspace in which one tiny night has closed."""
    return clone(template, tmp_path / "workspace")


@pytest.fixture
def fresh(tmp_path):
    """A workspace in which no night has run, on the tiny shop."""
    return make_workspace(tmp_path / "workspace", TINY)
