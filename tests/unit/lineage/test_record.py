import datetime
from pathlib import Path

import pytest
import yaml

from stillhouse.errors import RegistryError
from stillhouse.lineage.graph import find_output, stages_behind
from stillhouse.lineage.model_card import model_card, teacher_card
from stillhouse.lineage.record import environment, gaps, gather, gather_teacher, maker
from stillhouse.lineage.statement import build, canonical


def entry(path):
    """A dep or an out as dvc.lock has it; the hash is the path, so that tables below can be read."""
    folder = "." not in path
    return {"path": path, "hash": "md5", "md5": path + (".dir" if folder else ""), "size": 9} | (
        {"nfiles": 2} if folder else {}
    )


def stage(name, inputs, outputs, params=None, code=()):
    words = [f"{argument}={path}" for argument, path in {**inputs, **outputs}.items()]
    return {
        "cmd": f"stillhouse stage {name} " + " ".join(words),
        "deps": [entry(path) for path in (*inputs.values(), *code)],
        "outs": [entry(path) for path in outputs.values()],
        **({"params": params} if params else {}),
    }


@pytest.fixture
def lock():
    code = ["src/stillhouse/errors.py"]
    seed = {"params.yaml": {"seed": 7, "compute": {"threads": 2}}}
    stages = {
        "ingest": stage("ingest", {}, {"snapshot": "data/snapshot"}, code=code),
        "validate": stage(
            "validate",
            {"snapshot": "data/snapshot", "previous_profile": "previous/profile"},
            {"accepted": "data/accepted", "quarantine": "data/quarantine", "verdict": "reports/verdict.json"},
            code=[*code, "src/stillhouse/data/contract.py"],
        ),
        "prepare": stage(
            "prepare", {"accepted": "data/accepted"}, {"vocabulary": "data/vocabulary", "sequences": "data/sequences"}
        ),
        "train_teacher": stage(
            "train_teacher",
            {"sequences": "data/sequences", "previous_teacher": "previous/teacher"},
            {"teacher": "models/teacher"},
            params=seed,
        ),
        "export_soft_targets": stage(
            "export_soft_targets", {"teacher": "models/teacher"}, {"soft_targets": "data/soft_targets"}
        ),
    }
    for name in ("gru", "transformer"):
        student = {"student": f"models/students/{name}"}
        package = {"package": f"packages/{name}"}
        stages |= {
            f"train_student@{name}": stage(
                f"train_student@{name}", {"soft_targets": "data/soft_targets"}, student, params=seed
            ),
            f"package@{name}": stage(f"package@{name}", student, package),
            f"evaluate@{name}": stage(f"evaluate@{name}", package, {"evaluation": f"evaluations/{name}"}),
        }
    stages["evaluate_champion"] = stage(
        "evaluate_champion",
        {"champion": "previous/champion", "sequences": "data/sequences"},
        {"evaluation": "evaluations/_champion"},
    )
    return {"schema": "2.0", "stages": stages}


@pytest.fixture
def arguments(lock):
    window = {"ndcg_at_10": 0.25, "hr_at_10": 0.5, "users": 1200}
    return {
        "night": {
            "id": "2026-03-12",
            "as_of": "2026-03-12T00:00:00+00:00",
            "source": {"kind": "shop"},
            "fingerprint": "f",
        },
        "tag": "night/2026-03-12/open",
        "commit": "c" * 40,
        "lock": lock,
        "student": "gru",
        "params": {"gate": {"seed": 17}, "validate": {"earliest": datetime.date(1995, 1, 1)}, "ks": (1, 10)},
        "verdict": {"accepted_rows": 1000, "quarantined_rows": 3, "passed": True},
        "package": {"bytes": 4096, "parameters": 900, "length": 50, "repeat_items": False},
        "package_digest": "d" * 64,
        "gate": {"passed": True},
        "metrics": {
            "time_window": window,
            "leave_one_out": {"ndcg_at_10": 0.2},
            "popularity": {"time_window": {"ndcg_at_10": 0.1}},
        },
        "runs": {"prepare": "r1", "package@gru": "r2"},
    }


def test_a_student_rests_on_its_own_stages_and_on_no_other_students(arguments):
    names = [one["name"] for one in gather(**arguments)["stages"]]
    assert names == [
        "ingest", "validate", "prepare", "train_teacher", "export_soft_targets", "train_student@gru", "package@gru",
        "evaluate@gru", "evaluate_champion",
    ]  # fmt: skip


def test_a_whole_record_has_no_gaps(lock):
    assert gaps(lock, "gru", dict.fromkeys(lock["stages"], "run")) == []


def test_what_a_record_could_not_name_is_a_gap(lock):
    runs = dict.fromkeys(lock["stages"], "run")
    del runs["train_teacher"]
    assert gaps(lock, "gru", runs) == ["the tracking run of train_teacher"]
    lock["stages"]["export_soft_targets"]["outs"] = []
    assert "soft_targets" in gaps(lock, "gru", runs)
    del lock["stages"]["package@gru"]
    assert "must hold the stage package@gru" in gaps(lock, "gru", runs)[0]


def test_every_input_and_output_stands_with_its_hash_and_argument(arguments):
    stages = {one["name"]: one for one in gather(**arguments)["stages"]}
    validate = stages["validate"]
    assert validate["inputs"] == [
        {"path": "data/snapshot", "argument": "snapshot", "md5": "data/snapshot.dir", "size": 9, "files": 2},
        {
            "path": "previous/profile",
            "argument": "previous_profile",
            "md5": "previous/profile.dir",
            "size": 9,
            "files": 2,
        },
    ]
    assert validate["outputs"][2] == {
        "path": "reports/verdict.json", "argument": "verdict", "md5": "reports/verdict.json", "size": 9,
    }  # fmt: skip
    assert validate["code"] == ["src/stillhouse/data/contract.py", "src/stillhouse/errors.py"]
    assert (stages["package@gru"]["run"], stages["ingest"]["run"]) == ("r2", None)


def test_the_record_names_what_an_auditor_asks_for_first(arguments):
    predicate = gather(**arguments)
    assert {name: link["path"] for name, link in predicate["links"].items()} == {
        "snapshot": "data/snapshot", "accepted": "data/accepted", "quarantine": "data/quarantine",
        "verdict": "reports/verdict.json", "vocabulary": "data/vocabulary", "sequences": "data/sequences",
        "teacher": "models/teacher", "soft_targets": "data/soft_targets", "checkpoint": "models/students/gru",
        "package": "packages/gru",
    }  # fmt: skip
    assert list(predicate["inherited"]) == ["previous/champion", "previous/profile", "previous/teacher"]
    assert list(predicate["code"]) == ["src/stillhouse/data/contract.py", "src/stillhouse/errors.py"]
    assert predicate["seeds"] == {"train_teacher": 7, "train_student@gru": 7, "gate": 17}
    assert (predicate["night"]["tag"], predicate["night"]["commit"]) == ("night/2026-03-12/open", "c" * 40)


def test_the_record_is_plain_data_and_the_same_each_time(arguments):
    predicate = gather(**arguments)
    assert predicate["params"] == {"gate": {"seed": 17}, "validate": {"earliest": "1995-01-01"}, "ks": [1, 10]}
    files = {"model.onnx": "0" * 64}
    assert canonical(build(files, predicate)) == canonical(build(files, gather(**arguments)))


def test_a_stage_that_the_lock_lacks_is_named(arguments, lock):
    del lock["stages"]["package@gru"]
    with pytest.raises(RegistryError, match=r"dvc.lock must hold the stage package@gru, found evaluate@gru, "):
        gather(**arguments)


def test_an_output_without_a_hash_is_named(lock):
    del lock["stages"]["ingest"]["outs"][0]["md5"]
    with pytest.raises(RegistryError, match=r"must hold the md5 of data/snapshot, found .* \(dvc.lock: ingest\)"):
        stages_behind(lock, ["ingest"])


def test_a_dep_inside_an_output_leads_to_its_maker(lock):
    lock["stages"]["prepare"]["deps"] = [entry("data/accepted/items.parquet")]
    assert [one["name"] for one in stages_behind(lock, ["prepare"])[0]] == ["ingest", "validate", "prepare"]


def test_what_is_not_there_is_none(lock):
    stages, _ = stages_behind(lock, ["ingest"])
    assert find_output(stages, "ingest", "snapshot")["md5"] == "data/snapshot.dir"
    assert find_output(stages, "ingest", "other") is None
    assert find_output(stages, "package@gru", "package") is None


def test_every_link_names_a_stage_and_an_argument_of_the_real_graph():
    from stillhouse.lineage.record import _LINKS

    graph = yaml.safe_load((Path(__file__).parents[3] / "dvc.yaml").read_text())["stages"]
    for name, argument in _LINKS.values():
        base = name.partition("@")[0]
        command = graph[base].get("do", graph[base])["cmd"]
        assert f" {argument}=" in command, (name, argument)


def test_the_environment_names_what_can_change_a_number():
    found = environment()
    assert found["python"].startswith("3.11.")
    assert {"torch", "onnxruntime", "numpy", "stillhouse"} <= found["libraries"].keys()


def test_the_card_says_how_good_how_large_and_from_where(arguments):
    card = model_card(
        gather(**arguments),
        verdict="passed",
        reason="clears the margin",
        timings={"p50_ms": 0.5, "p99_ms": 1.25, "latency_threads": 1},
    )
    for line in (
        "# gru, night 2026-03-12",
        "Gate: **passed**: clears the margin",
        "| ndcg_at_10 | 0.25 | 0.2 |",
        "| ndcg_at_10 of popularity | 0.1 | – |",
        "| users or events ranked | 1,200 | – |",
        "| bytes | 4,096 |",
        "| p99 ms, one user, 1 thread(s) | 1.25 |",
        "- Data up to 2026-03-12T00:00:00+00:00: 1,000 rows accepted, 3 in quarantine.",
        "- Code: `night/2026-03-12/open` (cccccccccccc).",
        "- A first night: nothing was inherited.",
        "- Teacher: `models/teacher.dir` (models/teacher).",
    ):
        assert line in card
    assert "items of the history are never recommended again" in card
    assert "None" not in card


def test_the_card_of_a_later_night_names_its_ancestor(arguments):
    arguments |= {
        "ancestor": {"night": "2026-03-11", "tag": "night/2026-03-11/closed", "commit": "b" * 40},
        "metrics": {},
    }
    card = model_card(gather(**arguments), verdict="refused", reason="too slow")
    assert "- Started from night 2026-03-11." in card
    assert "Nothing was measured." in card


def test_a_name_from_the_data_makes_no_heading_and_no_picture_on_a_card(arguments):
    reason = "found category Comedy\n\n# Gate: **passed**\n\n<img src=http://evil/x> ![x](http://evil/y)"
    card = model_card(gather(**arguments), verdict="refused", reason=reason)
    assert (
        "Gate: **refused**: found category Comedy # Gate: \\*\\*passed\\*\\* \\<img src=http://evil/x\\> !\\[x\\]("
        in card
    )
    assert "\n# Gate" not in card


@pytest.fixture
def of_teacher(arguments, lock):
    lock["stages"]["check_teacher"] = stage(
        "check_teacher",
        {"teacher": "models/teacher", "previous_teacher": "previous/teacher"},
        {"checked": "reports/teacher.json"},
    )
    kept = ("night", "tag", "commit", "lock", "params", "verdict", "runs")
    teacher = {"checkpoint_digest": "d" * 64, "header": {"warm": True}, "start": "warm", "metrics": {"bytes": 4096}}
    teacher["metrics"]["leave_one_out"] = {"ndcg_at_10": 0.2}
    teacher["from"] = {"version": 4, "night": "2026-03-11", "md5": "previous/teacher.dir"}
    return {name: arguments[name] for name in kept} | {"teacher": teacher}


def test_a_teacher_rests_on_the_stages_up_to_its_check(of_teacher):
    found = gather_teacher(**of_teacher)
    names = [one["name"] for one in found["stages"]]
    assert names == ["ingest", "validate", "prepare", "train_teacher", "check_teacher"]
    assert list(found["links"]) == [
        "snapshot", "accepted", "quarantine", "verdict", "vocabulary", "sequences", "teacher",
    ]  # fmt: skip
    assert list(found["inherited"]) == ["previous/profile", "previous/teacher"]
    assert found["runs"] == {"prepare": "r1"}
    assert not {"student", "gate"} & found.keys()
    canonical(build({"model.json": "0" * 64}, found))


def test_a_record_says_which_stage_made_what_it_is_about(arguments, of_teacher):
    assert maker(gather(**arguments)) == "package@gru"
    assert maker(gather_teacher(**of_teacher)) == "train_teacher"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "warm, from teacher version 4, of night 2026-03-11."),
        ({"from": {"version": None, "night": "2026-03-11"}}, "warm, from the teacher of night 2026-03-11."),
        ({"from": None, "start": "cold"}, "cold."),
    ],
)
def test_a_teachers_card_says_how_good_it_is_what_it_started_from_and_where_it_lies(of_teacher, changes, says):
    of_teacher["teacher"] |= changes
    card = teacher_card(gather_teacher(**of_teacher), reason="better than popularity")
    for line in (
        "# Teacher, night 2026-03-12",
        "Check: **passed**: better than popularity",
        "| ndcg_at_10 | 0.2 |",
        "| bytes | 4,096 |",
        f"- Weights: {says}",
        "In DVC, as `models/teacher.dir`",
        "`git checkout night/2026-03-12/closed`",
    ):
        assert line in card
    assert "None" not in card
