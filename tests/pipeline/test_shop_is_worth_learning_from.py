"""On its defaults the built-in shop ranks popularity, a student alone, the same taught and the teacher in order."""

import pytest

from stillhouse.data.files import write_json, write_none
from stillhouse.data.shop import first_as_of
from stillhouse.data.sources import fingerprint
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.hard import HardObjective
from stillhouse.evaluate.popularity import PopularityScorer
from stillhouse.evaluate.scoring import score_split
from stillhouse.params.base import build, stage_values
from stillhouse.params.document import STAGE_PARAMS, load_document
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.reporting import SilentReporter
from stillhouse.runner.closure import package_root
from stillhouse.runner.stage import load_stage
from stillhouse.train.night import Apprentice, read_night, train_model

pytestmark = pytest.mark.slow
QUIET = SilentReporter()


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """The default shop's first night up to prepared sequences, and the settings as shipped."""
    root = tmp_path_factory.mktemp("shop")
    _, plain = load_document(package_root().parent / "params.yaml")
    spec = build(SourceSpec, plain["source"], "source")
    as_of = first_as_of(spec.shop)
    facts = {"as_of": as_of, "source": plain["source"], "fingerprint": fingerprint(spec, as_of)}
    paths = {
        name: root / name
        for name in (
            "snapshot",
            "accepted",
            "quarantine",
            "profile",
            "verdict",
            "data_docs",
            "admitted",
            "vocabulary",
            "sequences",
        )
    }
    paths |= {"previous_profile": root / "none", "previous_vocabulary": root / "none"}
    write_none(root / "none")
    for stage in ("ingest", "validate", "admit", "prepare"):
        function, model = load_stage(stage)
        takes = function.__kwdefaults__ or {}
        names = set(function.__annotations__) - {"params", "reporter", "return"} | set(takes)
        params = build(model, stage_values(model, plain, facts), stage)
        function(**{name: paths[name] for name in names}, params=params, reporter=QUIET)
    return root, plain, paths


def trained(night, tmp_path, model, training, name):
    root, plain, paths = night
    words, events = read_night(paths["vocabulary"], paths["sequences"], plain["repeat_items"])
    settings = build(TrainStudentParams, stage_values(TrainStudentParams, plain, {}, "transformer"), "train_student")
    apprentice = Apprentice(model, training, settings.compute, plain["seed"], root / "none", name)
    (tmp_path / name).mkdir()
    outcome = train_model(
        apprentice,
        words,
        events,
        HardObjective(),
        resume=tmp_path / name,
        checkpoint=tmp_path / f"{name}.model",
        reporter=QUIET,
    )
    return outcome["valid_ndcg_at_10"]


def taught(night, tmp_path, name):
    """The NDCG@10 (valid) of the student ``name``, distilled as a night distils it from the teacher in ``tmp_path``."""
    root, plain, paths = night
    write_json(tmp_path / "checked.json", {"passed": True})
    given = {"vocabulary": paths["vocabulary"], "sequences": paths["sequences"], "soft_targets": tmp_path / "store"}
    before = {"previous_soft_targets": root / "none", "previous_student": root / "none"}
    given |= before | {"teacher": tmp_path / "teacher.model", "checked": tmp_path / "checked.json"}
    given["student"] = tmp_path / "taught.model"
    for stage, instance in (("export_soft_targets", None), ("train_student", name)):
        function, model = load_stage(stage)
        (tmp_path / stage).mkdir()
        arguments = {key: path for key, path in given.items() if key in function.__annotations__}
        params = build(model, stage_values(model, plain, {}, instance), stage)
        found = function(**arguments, resume=tmp_path / stage, params=params, reporter=QUIET)
    return found["valid_ndcg_at_10"]


def popularity(night):
    _, plain, paths = night
    words, events = read_night(paths["vocabulary"], paths["sequences"], plain["repeat_items"])
    scorer = PopularityScorer(words.popularity)
    scored = score_split(
        events,
        "valid",
        scorer,
        length=1,
        k=10,
        batch_size=256,
        repeat_items=plain["repeat_items"],
        fallback=words.popularity.astype("float32"),
        reporter=QUIET,
    )
    import numpy as np

    ranks = np.asarray(scored.ranks)
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0).mean())


def test_popularity_a_student_alone_the_same_taught_and_the_teacher_follow_each_other(night, tmp_path):
    _, plain, _ = night
    student = build(TrainStudentParams, stage_values(TrainStudentParams, plain, {}, "transformer"), "x")
    teacher = build(STAGE_PARAMS["train_teacher"], stage_values(STAGE_PARAMS["train_teacher"], plain, {}), "x")
    popular = popularity(night)
    alone = trained(night, tmp_path, student.student.model, student.training, "student")
    large = trained(night, tmp_path, teacher.model, teacher.training, "teacher")
    helped = taught(night, tmp_path, "transformer")
    print(f"NDCG@10 (valid): popularity {popular:.4f}, alone {alone:.4f}, taught {helped:.4f}, teacher {large:.4f}")
    assert alone > 3 * popular
    assert helped > 1.03 * alone
    assert large > 1.03 * helped
    assert Vocabulary.load(night[2]["vocabulary"]).n_items > 500
