"""Whole nights on the tiny shop, run as a user runs them."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.slow


def test_a_night_ends_with_its_table(first_table):
    for word in (
        "train_teacher",
        "evaluate@gru",
        "ran",
        "teacher",
        "champion",
        "NDCG@10",
        "p99",
        "Gate",
        "mlflow ui",
        "prefect server",
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
    forced = closed.run("run", "--force")
    rows = [line.split() for line in forced.out.splitlines() if " reused " in line or " ran " in line]
    assert len(rows) == 15 - 1
    assert {row[1] for row in rows} == {"reused"}
    assert registered(closed) == before
    assert closed.tags() == ["night/2026-03-02/closed", "night/2026-03-02/open"]


def test_after_dvc_repro_the_flow_reuses_everything(closed):
    closed.set({"train_student.distillation.alpha": 0.5})
    closed.run("run", "--force")
    closed.set({"evaluate.short_history": 4})
    repro = closed.dvc("repro")
    assert repro.returncode == 0, repro.stderr
    assert "Running stage 'evaluate@gru'" in repro.stdout
    forced = closed.run("run", "--force")
    assert " ran " not in forced.out
    assert "reused" in forced.out


def test_one_stage_is_reproduced_alone(closed):
    closed.set({"admit.max_quarantined": 0.06})
    done = closed.dvc("repro", "--single-item", "admit")
    assert done.returncode == 0, done.stderr
    assert "Running stage 'admit'" in done.stdout


def test_the_next_day_starts_from_last_night(closed):
    second = closed.run("run", "--as-of", "2026-03-03")
    assert "night 2026-03-03" in second.out.lower()
    assert json.loads((closed.root / "models" / "teacher" / "model.json").read_text())["warm"] is True
    night = closed.python(
        "from tasks.night import read_night; from pathlib import Path; n = read_night(Path('.')); print(n.previous, n.cold)"
    )
    assert night.stdout.split() == ["2026-03-02", "False"]
    first, second_vocabulary = (
        json.loads(path.read_text())
        for path in (
            closed.root / "previous/vocabulary/vocabulary.json",
            closed.root / "data/vocabulary/vocabulary.json",
        )
    )
    assert second_vocabulary["n_users"] >= first["n_users"]
    assert closed.tags()[-2:] == ["night/2026-03-03/closed", "night/2026-03-03/open"]
    assert "up to date" in closed.dvc("status").stdout
    assert "must be later" in closed.run("run", "--as-of", "2026-03-01", code=2).err


def test_cold_every_starts_the_weights_afresh_and_keeps_the_vocabulary(closed):
    closed.set({"night.cold_every": 1})
    closed.run("run", "--as-of", "2026-03-03")
    assert json.loads((closed.root / "models" / "teacher" / "model.json").read_text())["warm"] is False
    assert not (closed.root / "previous" / "vocabulary" / "none.json").exists()


def test_tags_leave_branch_and_index_alone_and_hold_the_dirty_code(closed):
    (closed.root / "src/stillhouse/extra.py").write_text('"""New."""\n')
    with (closed.root / "README.md").open("w") as file:
        file.write("not code\n")
    closed.set({"gate.seed": 18})
    before = subprocess.run(["git", "status", "--porcelain"], cwd=closed.root, capture_output=True, text=True).stdout
    closed.run("run", "--as-of", "2026-03-03")
    after = subprocess.run(["git", "status", "--porcelain"], cwd=closed.root, capture_output=True, text=True).stdout
    assert after == before
    held = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "night/2026-03-03/closed"],
        cwd=closed.root,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {"night.yaml", "dvc.lock", "previous.dvc", "src/stillhouse/extra.py"} <= set(held)
    assert "README.md" not in held
    shown = subprocess.run(
        ["git", "show", "night/2026-03-03/closed:params.yaml"], cwd=closed.root, capture_output=True, text=True
    ).stdout
    assert "seed: 18" in shown


def test_the_command_line_never_edits_params(closed):
    before = (closed.root / "params.yaml").read_bytes()
    closed.run("run", "--source", "missing.csv", code=2)
    closed.run("run", "--as-of", "2026-03-03")
    assert (closed.root / "params.yaml").read_bytes() == before


def test_two_runs_at_once_one_works_and_the_other_says_so(closed):
    first = closed.start("run", "--as-of", "2026-03-03")
    second = None
    while second is None or "nothing" in second.err:
        second = (
            closed.run("run", "--as-of", "2026-03-03", code=2)
            if (closed.root / ".stillhouse/run.json").read_text()
            else None
        )
    assert "one night runs at a time" in second.err
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, err


def test_status_tells_the_last_night_and_is_a_dead_mans_switch(closed, fresh):
    shown = closed.run("status")
    assert "2026-03-02" in shown.out
    assert "champion" in shown.out
    closed.run("status", "--max-age", "26h")
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


def registered(workspace):
    code = """
from pathlib import Path
from stillhouse.tracking.store import connect
from stillhouse.tracking.ledger_store import read
client = connect(Path('.').resolve()).client
versions = client.search_model_versions("name = 'student'")
print(len(versions), len(read(Path('.').resolve())))
"""
    done = workspace.python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
