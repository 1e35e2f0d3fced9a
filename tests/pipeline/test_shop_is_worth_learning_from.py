"""On its defaults the built-in night ranks popularity, a student alone, the same taught and the teacher in order."""

import os
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import yaml
from workspaces import ROOT, Workspace, make_workspace

from stillhouse.data.files import read_json, write_none
from stillhouse.data.shop import first_as_of
from stillhouse.data.tonight import read_night
from stillhouse.distill.hard import HardObjective
from stillhouse.evaluate.popularity import PopularityScorer
from stillhouse.evaluate.scoring import score_split
from stillhouse.params.base import build, stage_values
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.reporting import SilentReporter
from stillhouse.tracking.store import connect
from stillhouse.train.night import Apprentice, train_model
from tasks.policy import _GPU

pytestmark = pytest.mark.slow

STUDENT = "transformer"


def holds(workspace):
    """Whether the built-in shop's first night closed in ``workspace`` and its files are what its code would make."""
    if not (workspace.root / "night.yaml").exists():
        return False
    with filelock.FileLock(workspace.root / ".stillhouse" / "run.lock", timeout=900):  # a night at work is waited for
        as_of = yaml.safe_load((workspace.root / "night.yaml").read_text())["as_of"]
        first = first_as_of(build(SourceSpec, workspace.params()["source"], "source").shop).isoformat()
        if as_of != first or f"night/{first[:10]}/closed" not in workspace.tags():
            return False
        return "up to date" in workspace.dvc("status").stdout


@pytest.fixture(scope="module")
def night(once):
    """The built-in night on the settings as shipped: the one that `make run` closed here, or else one of its own."""
    here = Workspace(ROOT)
    if not holds(here):

        def make(root):
            make_workspace(root, {}).run("run")

        here, _ = once("built-in-night", make)
        assert holds(here)
    data, params = here.root / "data", here.params()
    words, events = read_night(data / "vocabulary", data / "sequences", params["repeat_items"])
    return SimpleNamespace(root=here.root, params=params, words=words, events=events)


def alone(night, tmp_path):
    """The NDCG@10 (valid) of the student, trained as the night trained it but for the teacher."""
    settings = build(TrainStudentParams, stage_values(TrainStudentParams, night.params, {}, STUDENT), "train_student")
    write_none(tmp_path / "none")
    student = settings.student.model, settings.training, settings.compute, night.params["seed"]
    (tmp_path / "resume").mkdir()
    outcome = train_model(
        Apprentice(*student, tmp_path / "none", STUDENT),
        night.words,
        night.events,
        HardObjective(),
        resume=tmp_path / "resume",
        checkpoint=tmp_path / "model",
        reporter=SilentReporter(),
    )
    return outcome["valid_ndcg_at_10"]


def popularity(night):
    scored = score_split(
        night.events,
        "valid",
        PopularityScorer(night.words.popularity),
        length=1,
        k=10,
        batch_size=256,
        repeat_items=night.params["repeat_items"],
        fallback=night.words.popularity.astype("float32"),
        reporter=SilentReporter(),
    )
    ranks = np.asarray(scored.ranks)
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0).mean())


def test_popularity_a_student_alone_the_same_taught_and_the_teacher_follow_each_other(night, tmp_path):
    popular, by_itself = popularity(night), alone(night, tmp_path)
    teacher, taught = (
        read_json(night.root / "metrics" / f"{stage}.json")["valid_ndcg_at_10"]
        for stage in ("train_teacher", f"train_student/{STUDENT}")
    )
    print(f"NDCG@10 (valid): popularity {popular:.4f}, alone {by_itself:.4f}, taught {taught:.4f}, {teacher=:.4f}")
    assert by_itself > 3 * popular
    assert taught > 1.03 * by_itself
    assert teacher > 1.03 * taught
    assert night.words.n_items > 500


@pytest.mark.skipif(any(path.exists() for path in _GPU), reason="students take turns on a GPU")
def test_its_students_were_trained_side_by_side_as_far_as_the_cores_go(night, monkeypatch):
    if (os.cpu_count() or 1) < 2 * night.params["compute"]["threads"]:
        pytest.skip("there are no cores for two students")
    if not (night.root / ".stillhouse" / "mlflow.db").exists():
        pytest.skip("the night that closed here was tracked by a server, and may have run on pools")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = connect(night.root).client
    files = [night.root / "runs" / "train_student" / f"{name}.json" for name in night.params["students"]]
    runs = [client.get_run(read_json(file)["run_id"]).info for file in files]
    assert len(runs) == 2
    assert max(run.start_time for run in runs) < min(run.end_time for run in runs)
