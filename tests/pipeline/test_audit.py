"""Every link of a student's record is checked again: what is whole is verified, what was touched is named."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from keys import new_keys
from workspaces import clone

from stillhouse.cli.audit import show_audit
from stillhouse.data.files import sha256_tree
from stillhouse.errors import RegistryError
from stillhouse.lineage import statement
from stillhouse.lineage.ledger import head
from stillhouse.lineage.signing import private_key, sign
from stillhouse.tracking.ledger_store import LEDGER
from stillhouse.tracking.registry import read_statement, register_student, version_of
from stillhouse.tracking.store import connect
from tasks import versions
from tasks.anchors import anchor
from tasks.audit import audit
from tasks.audit_content import ancestors, content_links
from tasks.audit_night import night_link
from tasks.champion import ledger_entries
from tasks.content import contents
from tasks.promotion import Move, carry_out
from tasks.reach import reached
from tasks.teachers import Teachers

pytestmark = pytest.mark.slow


@pytest.fixture
def two_nights(second, tmp_path, monkeypatch):
    """A copy of the workspace in which two tiny nights have closed, whose key is trusted."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STILLHOUSE_VERIFY_KEYS", second.key)
    return clone(second.workspace, tmp_path / "workspace")


def bad(tree):
    return {link.name: link.state for top in tree.below for link in top.walk() if link.state in ("missing", "altered")}


def named(tree, name):
    return next(link for link in tree.walk() if link.name == name)


def test_a_student_is_verified_back_to_the_cold_night(two_nights, second):
    done = two_nights.run("audit", "student@2", "--json", env={"STILLHOUSE_VERIFY_KEYS": second.key})
    tree = json.loads(done.out)
    assert tree["whole"] is True
    names = [link["name"] for link in tree["below"]]
    assert names == [
        *("served bytes", "lineage.json", "ledger", "gate", "night 2026-03-03", "package", "checkpoint"),
        *("soft_targets", "teacher", "sequences", "vocabulary", "accepted", "quarantine", "verdict", "snapshot"),
        *("other outputs", "ancestors"),
    ]
    assert all(link["state"] == "verified" for link in tree["below"])
    (ancestor,) = tree["below"][-1]["below"]
    assert (ancestor["name"], ancestor["says"]) == ("night 2026-03-02", "started afresh")
    (signature,) = tree["below"][1]["below"]
    assert signature["state"] == "verified"
    shown = two_nights.run("audit", "2").out
    assert "verified  teacher" in shown
    assert "which is not among the trusted keys" in shown
    assert "must be signed" in two_nights.run("audit", "2", "--require-signature", code=1).err
    assert "the record is not signed" in two_nights.run("audit", "1").out


def test_a_student_names_its_teachers_version_and_those_before(two_nights):
    tree = audit(two_nights.root, 2)
    assert named(tree, "teacher").says.endswith("; teacher version 2")
    assert named(tree, "models/teacher").says.endswith("; teacher version 1")


def test_a_teacher_is_verified_back_to_the_cold_night(two_nights):
    tree = audit(two_nights.root, 2, model="teacher")
    assert bad(tree) == {}
    assert tree.name == "teacher version 2: teacher of night 2026-03-03"
    assert [link.name for link in tree.below] == [
        *("checkpoint", "lineage.json", "ledger", "night 2026-03-03", "teacher", "sequences", "vocabulary"),
        *("accepted", "quarantine", "verdict", "snapshot", "other outputs", "ancestors"),
    ]
    assert named(tree, "signature").state == "verified"
    assert named(tree, "models/teacher").says.endswith("; teacher version 1")
    an_altered_teacher(two_nights, tree)
    assert bad(audit(two_nights.root, 2, model="teacher")) == {"checkpoint": "altered", "teacher": "altered"}
    assert json.loads(two_nights.run("audit", "teacher@1", "--json").out)["whole"] is True


def test_a_night_from_before_teachers_were_registered_is_no_fault(two_nights):
    with closing(sqlite3.connect(two_nights.root / ".stillhouse" / "mlflow.db")) as database:
        for table in ("model_version_tags", "model_versions", "registered_models"):
            database.execute(f"delete from {table} where name = 'teacher'")
        database.commit()
    tree = audit(two_nights.root, 2)
    assert bad(tree) == {}
    assert "teacher version" not in named(tree, "teacher").says


def objects(workspace, md5):
    """Return the files that hold a content in the cache and in the remote."""
    places = [workspace.root / ".dvc" / "cache", workspace.root / ".stillhouse" / "remote"]
    return [path for place in places for path in place.rglob(md5[2:]) if path.parent.name == md5[:2]]


def content_of(workspace, link, file):
    listed = json.loads(objects(workspace, link.hash)[0].read_text())
    return next(entry["md5"] for entry in listed if entry["relpath"] == file)


def overwrite(path, data=b"something else"):
    path.chmod(0o644)
    path.write_bytes(data)


def an_altered_teacher(workspace, tree):
    for path in objects(workspace, content_of(workspace, named(tree, "teacher"), "model.safetensors")):
        overwrite(path)


def a_lost_store(workspace, tree):
    for path in objects(workspace, named(tree, "soft_targets").hash):
        path.unlink()


def an_altered_package(workspace, tree):
    (path,) = Path(version_of(workspace.root, 2).location).rglob("items.parquet")
    overwrite(path)


def an_altered_record(workspace, tree):
    path = Path(version_of(workspace.root, 2).location) / "lineage.json"
    overwrite(path, path.read_bytes().replace(b"2026-03-03", b"2026-03-04"))


def a_record_that_is_gone(workspace, tree):
    (Path(version_of(workspace.root, 2).location) / "lineage.json").unlink()


def a_forged_signature(workspace, tree):
    place = Path(version_of(workspace.root, 2).location)
    forged = json.loads(sign((place / "lineage.json").read_bytes(), private_key(new_keys()[0], "test")))
    real = json.loads((place / "lineage.dsse.json").read_bytes())
    forged["signatures"][0]["keyid"] = real["signatures"][0]["keyid"]
    overwrite(place / "lineage.dsse.json", json.dumps(forged).encode())


def an_altered_decision(workspace, tree):
    for path in (workspace.root / ".stillhouse" / "artifacts").rglob("gate/decision-*.json"):
        overwrite(path, path.read_bytes().replace(b'"passed": true', b'"passed": false'))


def a_decision_of_rubbish(workspace, tree):
    for path in (workspace.root / ".stillhouse" / "artifacts").rglob("gate/decision-*.json"):
        overwrite(path, b"\xff")


def a_removed_entry(workspace, tree):
    with closing(sqlite3.connect(workspace.root / ".stillhouse" / "mlflow.db")) as database:
        for table in ("model_version_tags", "model_versions"):
            database.execute(f"delete from {table} where name = 'student-ledger' and version = 1")
        database.commit()


def git(workspace, *words):
    done = subprocess.run(["git", *words], cwd=workspace.root, check=True, capture_output=True, text=True)
    return done.stdout


def a_lost_tag(workspace, tree):
    subprocess.run(["git", "tag", "-d", "night/2026-03-02/closed"], cwd=workspace.root, check=True, capture_output=True)


def another_commit_under_the_tag(workspace, tree):
    tag = ["git", "tag", "-f", "night/2026-03-03/open", "HEAD"]
    subprocess.run(tag, cwd=workspace.root, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (an_altered_teacher, {"teacher": "altered"}),
        (a_lost_store, {"soft_targets": "missing"}),
        (an_altered_package, {"served bytes": "altered"}),
        (an_altered_record, {"lineage.json": "altered"}),
        (a_record_that_is_gone, {"lineage.json": "missing"}),
        (a_forged_signature, {"signature": "altered"}),
        (an_altered_decision, {"gate": "altered"}),
        (a_decision_of_rubbish, {"gate": "altered"}),
        (a_removed_entry, {"ledger": "altered", "gate": "missing"}),
        (a_lost_tag, {"night 2026-03-02": "missing"}),
        (another_commit_under_the_tag, {"night 2026-03-03": "altered"}),
    ],
)
def test_what_was_touched_is_named_and_nothing_else(two_nights, spoil, found):
    before = audit(two_nights.root, 2)
    assert before.whole
    assert bad(before) == {}
    spoil(two_nights, before)
    after = audit(two_nights.root, 2)
    assert not after.whole
    assert bad(after) == found
    assert after.state == "altered"


@pytest.fixture
def recorded(second, monkeypatch):
    """The workspace in which two tiny nights have closed, to be looked at only, and what the second's record says."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = second.workspace.root
    return root, json.loads(read_statement(root, 2))["predicate"]


def states(*links):
    """The state of each link below these that is not verified; of two of one name, the last one's."""
    return {below.name: below.state for link in links for below in link.walk() if below.state != "verified"}


def another_digest_of_code(predicate):
    predicate["code"][next(iter(predicate["code"]))] = "0" * 32


def code_that_the_commit_lacks(predicate):
    predicate["code"]["src/stillhouse/gone.py"] = "0" * 32


def another_setting(predicate):
    predicate["params"]["gate"]["seed"] += 1


def a_setting_that_the_commit_lacks(predicate):
    predicate["params"]["beside"] = 1


def another_source(predicate):
    predicate["night"]["source"] = {"kind": "csv"}


def another_fingerprint(predicate):
    predicate["night"]["fingerprint"] = "0" * 64


def another_time(predicate):
    predicate["night"]["as_of"] = "2026-03-03T00:00:01+00:00"


def another_library(predicate):
    predicate["environment"]["libraries"]["torch"] = "1.0.0"


def another_build_of_a_library(predicate):
    predicate["environment"]["libraries"]["torch"] += "+cu130"


def a_library_that_is_not_pinned(predicate):
    predicate["environment"]["libraries"]["beside"] = "1.0.0"


def output_of(predicate, path):
    return next(one for stage in predicate["stages"] for one in stage["outputs"] if one["path"] == path)


def another_output(predicate):
    output_of(predicate, "data/sequences")["md5"] = "0" * 32 + ".dir"


def another_run_of_a_stage(predicate):
    output_of(predicate, "runs/prepare.json")["md5"] = "0" * 32


def another_commit(predicate):
    predicate["night"]["commit"] = "0" * 40


def a_night_without_tags(predicate):
    predicate["night"]["id"] = "2026-03-09"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (another_digest_of_code, {"code": "altered"}),
        (code_that_the_commit_lacks, {"code": "missing"}),
        (another_setting, {"params": "altered"}),
        (a_setting_that_the_commit_lacks, {"params": "altered"}),
        (another_source, {"source and as_of": "altered"}),
        (another_fingerprint, {"source and as_of": "altered"}),
        (another_time, {"source and as_of": "altered"}),
        (another_library, {"environment": "noted"}),
        (another_build_of_a_library, {}),
        (a_library_that_is_not_pinned, {"environment": "noted"}),
        (another_output, {"dvc.lock": "altered"}),
        (another_run_of_a_stage, {}),
        (another_commit, {"night 2026-03-03": "altered"}),
        (a_night_without_tags, {"night 2026-03-09": "missing"}),
    ],
)
def test_what_a_record_says_of_its_night_is_held_against_the_nights_commits(recorded, spoil, found):
    root, predicate = recorded
    assert states(night_link(root, predicate)) == {}
    spoil(predicate)
    assert states(night_link(root, predicate)) == found


def test_what_the_nights_commits_lack_is_missing(two_nights):
    root = two_nights.root
    predicate = json.loads(read_statement(root, 2))["predicate"]
    bare = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "commit-tree",
        "-m",
        "nothing",
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    ]
    subprocess.run(["git", "mktree"], cwd=root, check=True, capture_output=True, input=b"")
    commit = subprocess.run(bare, cwd=root, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "tag", "-f", "night/2026-03-03/open", commit], cwd=root, check=True, capture_output=True)
    predicate["night"]["commit"] = commit
    lacking = dict.fromkeys(("code", "params", "source and as_of", "environment"), "missing")
    assert states(night_link(root, predicate)) == lacking
    subprocess.run(["git", "tag", "-f", "night/2026-03-03/closed", commit], cwd=root, check=True, capture_output=True)
    assert states(night_link(root, predicate)) == lacking | {"dvc.lock": "altered"}
    subprocess.run(["git", "tag", "-d", "night/2026-03-03/closed"], cwd=root, check=True, capture_output=True)
    assert states(night_link(root, predicate)) == lacking | {"dvc.lock": "missing"}


def a_teacher_that_nobody_handed_on(predicate):
    predicate["inherited"]["previous/teacher"]["md5"] = "0" * 32 + ".dir"


def a_student_that_nobody_handed_on(predicate):
    predicate["inherited"]["previous/students/small"]["md5"] = "0" * 32 + ".dir"


def an_ancestor_at_another_commit(predicate):
    predicate["ancestor"]["commit"] = "0" * 40


def an_ancestor_without_tags(predicate):
    predicate["ancestor"]["night"] = "2026-03-01"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (a_teacher_that_nobody_handed_on, {"night 2026-03-02": "altered"}),
        (a_student_that_nobody_handed_on, {"night 2026-03-02": "altered"}),
        (an_ancestor_at_another_commit, {"night 2026-03-02": "altered"}),
        (an_ancestor_without_tags, {"night 2026-03-01": "missing"}),
    ],
)
def test_what_was_taken_over_is_held_against_what_the_night_before_made(recorded, spoil, found):
    root, predicate = recorded
    teachers = Teachers.of(root)
    with contents(root) as kept:
        assert states(ancestors(root, kept, predicate, teachers)) == {}
        spoil(predicate)
        assert states(ancestors(root, kept, predicate, teachers)) == found


def another_verdict(predicate):
    predicate["verdict"]["accepted_rows"] += 1


def a_link_that_is_not_named(predicate):
    del predicate["links"]["vocabulary"]


def an_output_that_is_nowhere(predicate):
    output_of(predicate, "metrics/prepare.json")["md5"] = "0" * 32


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (another_verdict, {"its copy in the record": "altered"}),
        (a_link_that_is_not_named, {"vocabulary": "missing"}),
        (an_output_that_is_nowhere, {"other outputs": "missing", "metrics/prepare.json": "missing"}),
    ],
)
def test_what_a_record_says_of_content_is_held_against_the_content(recorded, spoil, found):
    root, predicate = recorded
    teachers = Teachers.of(root)
    with contents(root) as kept:
        assert states(*content_links(kept, predicate, teachers)) == {}
        spoil(predicate)
        assert states(*content_links(kept, predicate, teachers)) == found


def test_content_that_is_in_the_remote_alone_is_verified(two_nights):
    shutil.rmtree(two_nights.root / ".dvc" / "cache")
    tree = audit(two_nights.root, 2)
    assert bad(tree) == {}
    assert "in the remote" in named(tree, "teacher").says


def test_an_altered_student_fails_the_command(two_nights):
    an_altered_package(two_nights, None)
    assert "altered   served bytes" in two_nights.run("audit", "champion", code=1).out


def test_openlineage_is_told_every_stage_and_no_more_than_an_audit_found_whole(two_nights, capfd, monkeypatch):
    monkeypatch.delenv("OPENLINEAGE_NAMESPACE", raising=False)
    how = {"as_json": False, "openlineage": True, "require_signature": False}
    assert show_audit(two_nights.root, "2", **how) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    ended = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    lock = two_nights.lock()
    assert set(ended) == set(lock)
    for name, event in ended.items():
        made = {one["name"]: one["facets"]["version"]["datasetVersion"] for one in event["outputs"]}
        assert made == {one["path"]: one["md5"] for one in lock[name]["outs"]}
        assert event["eventTime"] == "2026-03-03T00:00:00+00:00"
    named = {one["name"]: one for one in ended["train_teacher"]["inputs"]}
    before = yaml.safe_load(git(two_nights, "show", "night/2026-03-02/closed:dvc.lock"))["stages"]["train_teacher"]
    (teacher,) = [one["md5"] for one in before["outs"] if one["path"] == "models/teacher"]
    assert named["models/teacher"]["facets"]["version"]["datasetVersion"] == teacher, "the teacher of the night before"
    assert len({one["name"] for one in ended["check_teacher"]["inputs"]}) == len(ended["check_teacher"]["inputs"])
    assert show_audit(two_nights.root, "teacher@2", **how) == 0
    of_teacher = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [one for one in events if one in of_teacher] == of_teacher, "the same stage of a night is the same run"
    an_altered_package(two_nights, None)
    assert show_audit(two_nights.root, "2", **how) == 1
    told = capfd.readouterr()
    assert told.out == "", "what is altered is told to nobody"
    assert "altered   served bytes" in told.err


def test_the_machine_that_registered_a_record_asks_nobody_for_it(two_nights, monkeypatch):
    def asked(*_):
        pytest.fail("a server of a thousand records answers for half a minute")

    monkeypatch.setattr("tasks.records.statement_of", asked)
    day = two_nights.root / "data" / "snapshot" / "interactions" / "2026-03-01.parquet"
    assert [one.info.version for one in reached(two_nights.root, str(day))] == [1, 2]


def test_a_package_on_disk_is_found_by_its_bytes(two_nights):
    package = two_nights.root / "packages" / "small"
    assert json.loads(two_nights.run("audit", str(package), "--json").out)["name"].startswith("student version 2")
    (package / "beside.txt").write_text("nobody's business")
    assert "student version 2" in two_nights.run("audit", "packages/small/model.onnx").out
    overwrite(package / "model.onnx")
    refused = two_nights.run("audit", "packages/small/model.onnx", code=2).err
    assert "must be those of a registered version" in refused


def test_a_file_of_data_is_followed_to_every_student_it_reached(two_nights):
    days = sorted((two_nights.root / "data/snapshot/interactions").iterdir())
    new = next(path for path in days if "2026-03-02" in path.name)
    rows = json.loads(two_nights.run("audit", "--data", str(new.relative_to(two_nights.root)), "--json").out)
    assert [(row["version"], row["through"]) for row in rows] == [(2, "2026-03-03")]
    old = next(path for path in days if "2026-02-01" in path.name)
    assert [one.info.version for one in reached(two_nights.root, str(old))] == [1, 2]
    assert "no registered student" in two_nights.run("audit", "--data", "0" * 32).out
    assert "must be named by its MD5" in two_nights.run("audit", "--data", "rubbish", code=2).err


def test_a_student_is_made_again_byte_for_byte(two_nights):
    before = two_nights.lock()
    done = two_nights.run("reproduce", "student@2", "--json")
    found = json.loads(done.out)
    assert found["identical"] is True
    states = {one["path"]: one["state"] for one in found["outputs"]}
    for path in ("data/sequences", "models/teacher", "data/soft_targets", "models/students/small", "packages/small"):
        assert states[path] == "identical"
    assert states["runs/train_teacher.json"] == "by nature"
    assert not (two_nights.root / ".stillhouse" / "reproduced").exists()
    assert two_nights.lock() == before
    assert "up to date" in two_nights.dvc("status").stdout


def test_a_night_that_has_not_closed_cannot_be_made_again(two_nights):
    tag = ["git", "tag", "-d", "night/2026-03-03/closed"]
    subprocess.run(tag, cwd=two_nights.root, check=True, capture_output=True)
    assert "must be closed to be made again" in two_nights.run("reproduce", "2", code=2).err
    (two_nights.root / "there").mkdir()
    assert "must not exist yet" in two_nights.run("reproduce", "1", "--keep", "there", code=2).err


def test_what_a_night_evaluated_beside_the_student_may_be_done_again(two_nights):
    lock = (two_nights.root / "dvc.lock").read_text()
    of_champion = two_nights.lock()["evaluate_champion"]["outs"][0]["md5"]
    (two_nights.root / "dvc.lock").write_text(lock.replace(of_champion, "0" * 32 + ".dir"))
    head = versions.ledger_heads(two_nights.root)[-1][1]
    tagged = ("night.yaml", "previous.dvc", versions.LOCK)
    tag = ["git", "tag", "-d", "night/2026-03-03/closed"]
    subprocess.run(tag, cwd=two_nights.root, check=True, capture_output=True)
    versions.tag_night(two_nights.root, "2026-03-03", versions.CLOSED, versions.closing_message("x", head), tagged)
    assert bad(audit(two_nights.root, 2)) == {}


def test_a_ledger_cut_off_together_with_its_nights_tag_is_found_by_the_remote(two_nights):
    root = two_nights.root
    store = connect(root).client
    last = ledger_entries(root)[-1].number
    store.delete_model_version(LEDGER, str(last))
    tag = ["git", "tag", "-d", "night/2026-03-03/closed"]
    subprocess.run(tag, cwd=root, check=True, capture_output=True)
    assert ledger_entries(root), "what is left is a whole chain, and the tag that is left knows no better"
    found = named(audit(root, 1), "ledger")
    assert found.state == "altered"
    assert f"the ledger must hold entry {last}" in found.says
    assert "which DVC's remote names as its head" in two_nights.run("run", "--force", code=2).err
    move = Move("promoted", 1, None, "to hide it", "somebody", None, head(ledger_entries(root)).hash)
    with pytest.raises(RegistryError, match="which DVC's remote names as its head"):
        carry_out(root, move)
    with pytest.raises(RegistryError, match="it was cut off"):
        anchor(root)
    assert ledger_entries(root)[-1].number < last, "nothing was added, and what tells of it was not written over"


def test_a_student_registered_later_for_the_same_night_is_reached_by_its_own_data(two_nights):
    root = two_nights.root
    info = version_of(root, 2)
    plain = json.loads(read_statement(root, 2))
    plain["predicate"]["files"]["data/snapshot"]["interactions/late.parquet"] = "1" * 32
    package = root / "packages" / "small"
    card = json.loads((package / "package.json").read_text()) | {"note": "another"}
    (package / "package.json").write_text(json.dumps(card))
    register_student(
        root,
        package,
        night=info.night,
        name="small",
        digest=sha256_tree(package),
        statement=statement.canonical(statement.build(statement.subjects(package), plain["predicate"])),
        card="# small",
        metrics={},
        verdict="passed",
        reason="every rule passed",
        histories=[["i00001"]],
        run_id=info.run_id,
    )
    assert [one.info.version for one in reached(root, "1" * 32)] == [3]


def test_a_night_without_a_registered_student_is_asked_by_its_tag(two_nights):
    root = two_nights.root
    day = next(path for path in (root / "data/snapshot/interactions").iterdir() if "2026-02-01" in path.name)
    with closing(sqlite3.connect(root / ".stillhouse" / "mlflow.db")) as database:
        database.execute("delete from model_version_tags where name = 'student' and version = 1")
        database.execute("delete from model_versions where name = 'student' and version = 1")
        database.commit()
    assert [one.info.version for one in reached(root, str(day))] == [2]
    subprocess.run(["git", "tag", "-d", "night/2026-03-02/closed"], cwd=root, check=True, capture_output=True)
    with pytest.raises(RegistryError, match="what the file reached cannot be said"):
        reached(root, "0" * 32)
