"""Whole nights on the tiny shop, run as a user runs them."""

import hashlib
import json
import shutil
import subprocess
import time

import pytest
import yaml
from workspaces import Workspace

from stillhouse.data.files import sha256_tree
from stillhouse.tracking import aliases, ledger_store
from stillhouse.tracking.store import connect

pytestmark = pytest.mark.slow


def test_a_night_ends_with_its_table(first_table):
    for word in (
        "train_teacher",
        "evaluate@small",
        "ran",
        "teacher",
        "champion",
        "NDCG@10",
        "p99",
        "Gate",
        "mlflow ui",
        "Prefect UI",
    ):
        assert word in first_table, word


def test_after_a_flow_dvc_is_clean_and_repro_does_nothing(closed):
    assert "up to date" in closed.dvc("status").stdout
    before = closed.lock()
    repro = closed.dvc("repro")
    assert repro.returncode == 0
    assert "Running stage" not in repro.stdout
    assert closed.lock() == before


def test_a_second_run_has_nothing_to_do(closed):
    again = closed.run("run")
    assert "nothing to do" in again.out


def test_force_reuses_every_stage_and_registers_nothing_twice(closed):
    before = registered(closed)
    assert before == [1, 1, 2]  # a student, its teacher, an entry of each
    forced = closed.run("run", "--force")
    rows = [line.split() for line in forced.out.splitlines() if " reused " in line or " ran " in line]
    assert len(rows) == 11
    assert {row[1] for row in rows} == {"reused"}
    assert registered(closed) == before
    tags = tracked(closed)
    assert tags["children"] == 11
    for stage in ("ingest", "train_teacher", "evaluate@small"):
        made = json.loads((closed.root / "runs" / f"{stage.replace('@', '/')}.json").read_text())["run_id"]
        assert tags[f"stage.{stage.replace('@', '.')}.run_id"] == made
    assert closed.tags() == ["night/2026-03-02/closed", "night/2026-03-02/open"]


OPEN = """
from pathlib import Path
from tasks.night import open_night
from tasks.plan import Request, plan_night
root = Path('.').resolve()
print(open_night(root, plan_night(Request(root, as_of="2026-03-03"))).cold)
"""


@pytest.mark.drill  # of the two ways round CI runs the other: after the flow, `dvc repro` does nothing
def test_after_dvc_repro_the_flow_reuses_everything(closed):
    assert closed.python(OPEN).returncode == 0
    repro = closed.dvc("repro")
    assert repro.returncode == 0, repro.stderr
    assert "Running stage 'evaluate@small'" in repro.stdout
    flow = closed.run("run")
    assert " ran " not in flow.out
    assert flow.out.count(" reused ") == 11
    assert "night/2026-03-03/closed" in closed.tags()


@pytest.mark.drill  # what CI does by hand is one stage, below
def test_a_closed_night_performed_again_by_hand_becomes_a_revision(closed):
    closed.set({"evaluate.short_history": 4})
    assert closed.dvc("repro").returncode == 0
    assert "--force" in closed.run("run").out
    opened = closed.python(OPEN.replace('as_of="2026-03-03"', "force=True"))
    assert opened.returncode == 0, opened.stderr
    assert yaml.safe_load((closed.root / "night.yaml").read_text())["revises"] == "2026-03-02"


def test_one_stage_is_reproduced_alone(closed):
    closed.set({"admit.max_quarantined": 0.06})
    done = closed.dvc("repro", "--single-item", "admit")
    assert done.returncode == 0, done.stderr
    assert "Running stage 'admit'" in done.stdout


def test_a_damaged_shard_is_named_and_made_again_alone(closed):
    closed.set({"export_soft_targets.shard_positions": 256, "export_soft_targets.batch_size": 16})
    assert closed.dvc("repro", "--single-item", "export_soft_targets").returncode == 0
    store = closed.root / "data" / "soft_targets"
    shards = sorted(store.glob("shard-*.safetensors"))
    assert len(shards) > 2
    before = [file.read_bytes() for file in shards]
    spoiled = bytearray(before[1])
    spoiled[len(spoiled) // 2] ^= 1
    shards[1].unlink()
    shards[1].write_bytes(spoiled)
    refused = closed.dvc("repro", "--single-item", "train_student@small")
    assert refused.returncode != 0
    assert shards[1].name in refused.stdout + refused.stderr
    shutil.rmtree(closed.root / ".stillhouse" / "resume")  # as a night does that closes
    again = closed.dvc("repro", "--single-item", "--force", "export_soft_targets")
    assert again.returncode == 0, again.stderr
    assert f"{len(shards) - 1} of {len(shards)} shards stand finished" in again.stdout + again.stderr
    assert [file.read_bytes() for file in shards] == before
    shards[1].write_bytes(spoiled)
    assert closed.dvc("checkout", "--force", "data/soft_targets").returncode == 0
    assert [file.read_bytes() for file in shards] == before


def git(workspace, *arguments):
    return subprocess.run(["git", *arguments], cwd=workspace.root, capture_output=True, text=True, check=True).stdout


def test_the_next_day_starts_from_last_night(second):
    workspace, printed = second.workspace, second.printed
    assert "night 2026-03-03" in printed.lower()
    for model in ("models/teacher", "models/students/small"):
        assert json.loads((workspace.root / model / "model.json").read_text())["warm"] is True
    night = yaml.safe_load((workspace.root / "night.yaml").read_text())
    assert (night["previous"], night["cold"], night["champion"]) == ("2026-03-02", False, 1)
    before, now = (
        json.loads((workspace.root / place / "vocabulary/vocabulary.json").read_text())
        for place in ("previous", "data")
    )
    assert now["n_users"] >= before["n_users"]
    assert workspace.tags()[-2:] == ["night/2026-03-03/closed", "night/2026-03-03/open"]
    assert "up to date" in workspace.dvc("status").stdout
    assert "must not be earlier" in workspace.run("run", "--as-of", "2026-03-01", code=2).err


def test_a_night_leaves_branch_index_and_params_alone(second):
    assert second.after == second.before


def test_tags_hold_the_dirty_code_and_no_stray_file(second):
    workspace = second.workspace
    held = git(workspace, "ls-tree", "-r", "--name-only", "night/2026-03-03/closed").split()
    assert {"night.yaml", "dvc.lock", "previous.dvc", "src/stillhouse/extra.py"} <= set(held)
    assert "stray.csv" not in held
    assert "seed: 18" in git(workspace, "show", "night/2026-03-03/closed:params.yaml")


def test_the_remote_holds_what_a_fresh_clone_needs_to_restore_the_night(second, tmp_path):
    workspace = second.workspace
    other = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(workspace.root), str(other)], check=True)
    subprocess.run(["git", "checkout", "-q", "night/2026-03-03/closed"], cwd=other, check=True)
    shutil.copytree(workspace.root / ".stillhouse" / "remote", other / ".stillhouse" / "remote")
    clone_of = Workspace(other)
    pulled = clone_of.dvc("pull")
    assert pulled.returncode == 0, pulled.stderr
    assert "up to date" in clone_of.dvc("status").stdout
    assert (other / "packages/small/model.onnx").read_bytes() == (
        workspace.root / "packages/small/model.onnx"
    ).read_bytes()


def test_lineage_names_every_stage_by_hash_and_last_night(second):
    workspace = second.workspace
    files = sorted(
        (workspace.root / ".stillhouse" / "artifacts").rglob("lineage.json"), key=lambda path: path.stat().st_mtime
    )
    statement = json.loads(files[-1].read_text())
    record = statement["predicate"]
    lock = workspace.lock()
    made = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert record["night"]["id"] == "2026-03-03"
    assert record["ancestor"]["night"] == "2026-03-02"
    assert record["links"]["teacher"]["md5"] == made["models/teacher"]
    assert record["links"]["soft_targets"]["md5"] == made["data/soft_targets"]
    assert record["night"]["commit"] == git(workspace, "rev-parse", "night/2026-03-03/open").strip()
    assert "2026-03-02.parquet" in "".join(record["files"]["data/snapshot"])


def test_each_nights_teacher_is_registered_with_its_own_record_and_no_weights(second):
    shown = json.loads(second.workspace.run("history", "--model", "teacher", "--json").out)["teachers"]
    assert [(one["version"], one["night"], one["start"], one["from"], one["students"]) for one in shown] == [
        (1, "2026-03-02", "cold", None, [1]),
        (2, "2026-03-03", "warm", 1, [2]),
    ]
    made = json.loads((second.workspace.root / "metrics/check_teacher.json").read_text())
    assert shown[1]["ndcg_at_10"] == {
        protocol: made[protocol]["ndcg_at_10"] for protocol in ("leave_one_out", "time_window")
    }
    outputs = {out["path"]: out["md5"] for stage in second.workspace.lock().values() for out in stage["outs"]}
    assert shown[1]["md5"] == outputs["models/teacher"]
    assert shown[1]["entry"]["package"] == sha256_tree(second.workspace.root / "models/teacher")
    kept = {path.name for path in (second.workspace.root / ".stillhouse/artifacts").rglob("*") if path.is_file()}
    assert "model.safetensors" not in kept
    table = second.workspace.run("history", "--model", "teacher").out
    assert "version 1" in table
    assert [one["model"] for one in json.loads(second.workspace.run("history", "--json").out)["entries"]] == [
        "student",
        "student",
    ]


def test_the_decision_that_the_ledger_names_by_its_hash_is_kept_whole(second):
    workspace = second.workspace
    kept = [
        json.loads(path.read_text())
        for path in (workspace.root / ".stillhouse/artifacts").rglob("gate/decision-*.json")
    ]
    digests = {hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest() for one in kept}
    entries = [json.loads(entry.text) for entry in ledger_store.read(workspace.root)]
    named = {entry["verdict"] for entry in entries if entry["model"] == "student"}
    assert len(named) == 2
    assert named == digests


def test_cold_every_starts_the_weights_afresh_and_keeps_the_vocabulary(closed):
    closed.set({"night.cold_every": 1})
    opened = closed.python(OPEN)
    assert opened.stdout.split()[-1] == "True", opened.stderr
    empty = {path.parent.name for path in (closed.root / "previous").rglob("none.json")}
    assert empty == {"teacher", "soft_targets", "small"}


def test_two_runs_at_once_one_works_and_the_other_says_so(closed):
    first = closed.start("run", "--force")
    note = closed.root / ".stillhouse" / "run.json"
    while json.loads(note.read_text())["pid"] != first.pid:
        assert first.poll() is None
        time.sleep(0.05)
    second = closed.run("run", "--force", code=2)
    assert f"process {first.pid} at work" in second.err
    _, err = first.communicate(timeout=300)
    assert first.returncode == 0, err


def test_status_tells_the_last_night_and_is_a_dead_mans_switch(closed, fresh):
    shown = closed.run("status", "--max-age", "26h")
    assert "2026-03-02" in shown.out
    assert "champion" in shown.out
    assert "none in that time" in fresh.run("status", "--max-age", "26h", code=1).err
    facts = json.loads(closed.run("status", "--json").out)
    assert facts["stale"] == []
    closed.set({"prepare.window_days": 3})
    assert "prepare" in json.loads(closed.run("status", "--json").out)["stale"]


def test_the_champion_recommends(closed):
    answer = json.loads(closed.run("recommend", "--user", "nobody-knows-me", "-k", "3", "--json").out)
    assert answer["kind"] == "popular"
    assert "unknown" in answer["note"]
    assert len(answer["items"]) == 3
    item = answer["items"][0]["item"]
    personal = json.loads(closed.run("recommend", "--items", item, "-k", "5", "--json").out)
    assert personal["kind"] == "personal"
    assert item not in [row["item"] for row in personal["items"]]
    assert all(row["title"] for row in personal["items"])
    assert "must be given" in closed.run("recommend", code=2).err


def tracked(workspace):
    """The tags of the night's run, and how many stages' runs are its children."""
    store = connect(workspace.root)
    runs = store.client.search_runs([store.experiment_id])
    night = next(run for run in runs if run.data.tags.get("kind") == "night")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == night.info.run_id]
    return {**night.data.tags, "children": len(children), "status": night.info.status}


def registered(workspace):
    """How many versions of the student and of the teacher there are, and entries of the ledger."""
    client = connect(workspace.root).client
    versions = [len(client.search_model_versions(f"name = '{name}'")) for name in ("student", "teacher")]
    return [*versions, len(ledger_store.read(workspace.root))]


def test_a_new_student_gets_an_empty_start_and_the_rest_of_previous_stays(closed):
    document = yaml.safe_load((closed.root / "params.yaml").read_text())
    closed.set({"students": document["students"] | {"second": document["students"]["small"]}})
    opened = closed.python(OPEN.replace('as_of="2026-03-03"', "force=True"))
    assert opened.returncode == 0, opened.stderr
    assert (closed.root / "previous/students/second/none.json").exists()
    assert "previous.dvc" not in closed.dvc("status").stdout


def test_a_lost_ledger_stops_the_next_night_and_says_what_is_gone(closed):
    (closed.root / ".stillhouse/mlflow.db").unlink()
    lost = closed.run("run", "--as-of", "2026-03-03", code=2)
    assert "ledger must be whole" in lost.err
    assert "night/2026-03-02/closed" in lost.err


def test_a_clone_without_its_data_says_what_is_missing(closed, tmp_path):
    subprocess.run(["git", "clone", "-q", str(closed.root), str(tmp_path / "clone")], check=True)
    clone_of = Workspace(tmp_path / "clone")
    assert "ledger must be whole" in clone_of.run("run", "--as-of", "2026-03-03", code=2).err


def test_wrong_aliases_are_mended_by_the_next_command(closed):
    aliases.delete_alias(closed.root, "champion")
    assert aliases.get_aliases(closed.root) == {}
    closed.run("run")
    assert aliases.get_aliases(closed.root) == {"champion": 1}
