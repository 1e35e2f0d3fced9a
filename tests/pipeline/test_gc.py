"""What nothing reaches is freed, and nothing else: whole nights, junk beside them, an audit afterwards."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import filelock
import pytest
from workspaces import clone

from stillhouse.errors import NightError
from tasks import remote, versions
from tasks.collection import collect

pytestmark = pytest.mark.slow

JUNK = {"ab/cdef0123456789abcdef0123456789": b"nobody's", "cd/ef0123456789abcdef0123456789ab.dir": b"[]"}
OWN = ("night.yaml", "previous.dvc", "dvc.lock")
LONG_AGO = 1_700_000_000


@pytest.fixture(autouse=True)
def embedded(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def two_nights(second, tmp_path):
    """A copy of the workspace in which two tiny nights have closed."""
    return clone(second.workspace, tmp_path / "workspace")


def stores(workspace):
    return workspace.root / ".dvc" / "cache", workspace.root / ".stillhouse" / "remote"


def content(workspace):
    """Every object and every entry of the run cache, in the cache and in the remote."""
    return {
        file.relative_to(workspace.root)
        for store in stores(workspace)
        for part in ("files", "runs")
        for file in (store / part).rglob("*")
        if file.is_file()
    }


def everything(workspace):
    """Name and bytes of every file, but for what git and DVC keep of their own reading."""
    own = ("index", "btime")
    files = (file for file in workspace.root.rglob("*") if file.is_file() and file.name not in own)
    return {file.relative_to(workspace.root): file.read_bytes() for file in files}


def litter(workspace):
    """Put content there that nothing names, and caches that can be made again."""
    for store in stores(workspace):
        for name, data in JUNK.items():
            (store / "files" / "md5" / name).parent.mkdir(exist_ok=True)
            (store / "files" / "md5" / name).write_bytes(data)
    state = workspace.root / ".stillhouse"
    places = [
        *(state / "compared" / "some", state / "serving" / ("0" * 64), state / "reproduced-killed" / "clone"),
        state / "resume" / "train_teacher",
    ]
    for place in places:
        place.mkdir(parents=True)
        (place / "file").write_text("x" * 10)
    (state / "records").mkdir(exist_ok=True)
    (state / "records" / f"{'0' * 64}.json").write_text("{}")
    for name in ("compared", "serving", "reproduced-killed"):
        for one in [*(state / name).rglob("*"), state / name]:
            os.utime(one, (LONG_AGO, LONG_AGO))
    (state / "compared" / "fresh").mkdir()  # somebody may be at work in it


def leave_a_night_behind(workspace, as_of="2026-03-04"):
    """Open a night, perform its first stage, and put the workspace back to the night before."""
    before = {name: (workspace.root / name).read_bytes() for name in OWN}
    opened = workspace.python(
        "from pathlib import Path\n"
        "from tasks.night import open_night\n"
        "from tasks.plan import Request, plan_night\n"
        f"print(open_night(Path.cwd(), plan_night(Request(Path.cwd(), as_of={as_of!r}))).id)\n"
    )
    assert opened.returncode == 0, opened.stderr
    done = workspace.dvc("repro", "ingest")
    assert done.returncode == 0, done.stderr
    assert workspace.dvc("push", "--run-cache").returncode == 0
    for name, data in before.items():
        (workspace.root / name).write_bytes(data)
    done = workspace.dvc("checkout", "--force")
    assert done.returncode == 0, done.stderr
    return opened.stdout.split()[-1]


def freed(found):
    return {one.place: one.count for one in found.freed}


def test_junk_and_an_abandoned_night_go_and_an_audit_verifies_everything_from_the_remote_alone(two_nights):
    before, tags = content(two_nights), two_nights.tags()
    litter(two_nights)
    night = leave_a_night_behind(two_nights)
    assert len(content(two_nights)) > len(before) + 2 * len(JUNK)
    assert f"night/{night}/open" in two_nights.tags()
    told = json.loads(two_nights.run("gc", "--json").out)
    assert (told["tags"], told["nights"]) == ([f"night/{night}/open"], 2)
    assert content(two_nights) == before  # all that was reached, and nothing else
    assert two_nights.tags() == tags
    counts = {one["place"]: (one["count"], one["bytes"]) for one in told["freed"]}
    assert counts["cache"][0] > len(JUNK)
    assert counts["remote"][0] > len(JUNK)
    assert counts["run cache"][0] == counts["remote run cache"][0] == 1  # of ingest
    assert counts["workspace"] == (5, 42)
    state = two_nights.root / ".stillhouse"
    assert sorted(path.name for path in (state / "compared").iterdir()) == ["fresh"]
    assert not list(state.glob("reproduced-*"))
    assert not (state / "resume").exists()
    assert two_nights.dvc("status").stdout.startswith("Data and pipelines are up to date")
    shutil.rmtree(stores(two_nights)[0] / "files")
    two_nights.run("audit", "student@champion")
    assert set(freed(collect(two_nights.root, 1)).values()) == {0}


def test_a_dry_run_says_the_same_and_changes_no_byte(two_nights):
    litter(two_nights)
    before = everything(two_nights)
    said = collect(two_nights.root, 30, dry=True)
    assert everything(two_nights) == before
    done = collect(two_nights.root, 30)
    assert freed(said) == freed(done)
    assert freed(done) == {
        **{"cache": 2, "remote": 2, "run cache": 0, "remote run cache": 0},
        "workspace": 5,
    }
    assert everything(two_nights) != before


def test_a_champions_night_stays_however_few_nights_are_kept(two_nights):
    before = content(two_nights)
    found = collect(two_nights.root, 1, let_deleted_go=True)
    assert (found.nights, set(freed(found).values())) == (2, {0})
    assert content(two_nights) == before
    two_nights.run("audit", "1")


def test_the_code_that_workers_were_given_goes_with_its_night(two_nights):
    for night in ("2026-03-02", "2026-02-01", "2026-02-01.2"):
        remote.put(two_nights.root, f"nights/{night}/open-0123456789abcdef.bundle", b"code")
    (said,) = [one for one in collect(two_nights.root, 30, dry=True).freed if one.place == "bundles"]
    assert (said.count, said.bytes) == (2, 8)
    assert len(remote.names(two_nights.root, "nights")) == 3
    assert freed(collect(two_nights.root, 30))["bundles"] == 2
    assert remote.names(two_nights.root, "nights") == ["nights/2026-03-02/open-0123456789abcdef.bundle"]
    assert "bundles" not in freed(collect(two_nights.root, 30))


def test_a_lost_list_of_files_is_refused_and_nothing_is_freed(two_nights):
    litter(two_nights)
    outs = two_nights.lock()["train_teacher"]["outs"]
    lost = next(out["md5"] for out in outs if out["path"] == "models/teacher")
    cache, remote = (store / "files" / "md5" / lost[:2] / lost[2:] for store in stores(two_nights))
    kept = remote.read_bytes()
    cache.unlink()
    remote.unlink()
    before = content(two_nights)
    refused = two_nights.run("gc", code=2)
    assert len(refused.err.strip().splitlines()) == 1
    assert lost in refused.err
    assert content(two_nights) == before
    remote.write_bytes(kept)  # one copy of it will do
    collect(two_nights.root, 30)
    assert content(two_nights) < before | {remote.relative_to(two_nights.root)}


def test_a_kill_in_the_middle_loses_nothing_kept_and_the_next_time_frees_the_rest(two_nights):
    before, tags = content(two_nights), two_nights.tags()
    litter(two_nights)
    commit = versions.tag_commit(two_nights.root, "2026-03-03", versions.OPEN)
    subprocess.run(["git", "tag", "night/2026-03-09/open", commit], cwd=two_nights.root, check=True)
    killed = two_nights.python(
        "import os, signal, sys, pathlib\n"
        "import dvc_data.hashfile.gc as swept\n"
        "from tasks.collection import collect\n"
        "whole, calls = swept.gc, []\n"
        "def gc(*given, **named):\n"
        "    if calls: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    calls.append(whole(*given, **named))\n"
        "swept.gc = gc\n"
        "collect(pathlib.Path.cwd(), 30)\n"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert two_nights.tags() == tags
    assert len(content(two_nights)) == len(before) + len(JUNK)  # the remote's
    assert before < content(two_nights)
    collect(two_nights.root, 30)
    assert content(two_nights) == before


def test_nothing_is_freed_while_a_run_or_a_backfill_is_at_work_or_where_others_may_keep_theirs(two_nights, tmp_path):
    litter(two_nights)
    state, before = two_nights.root / ".stillhouse", content(two_nights)
    with filelock.FileLock(state / "run.lock"):
        for dry in (False, True):
            with pytest.raises(NightError, match="at work"):
                collect(two_nights.root, 30, dry=dry)
    (state / "backfills").mkdir()
    with filelock.FileLock(state / "backfills" / "march.lock"), pytest.raises(NightError, match="found march"):
        collect(two_nights.root, 30)
    local = two_nights.root / ".dvc" / "config.local"
    local.write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    with pytest.raises(NightError, match="must lie in the workspace"):
        collect(two_nights.root, 30)
    assert content(two_nights) == before
    shutil.move(stores(two_nights)[1], tmp_path / "remote")
    local.write_text(f"['remote \"local\"']\n    url = {tmp_path / 'remote'}\n")
    found = collect(two_nights.root, 30)
    assert set(freed(found)) == {"cache", "run cache", "workspace"}
    assert "--remote" in found.notes[0]
    assert all((tmp_path / "remote" / "files" / "md5" / name).exists() for name in JUNK)
    assert freed(collect(two_nights.root, 30, remote=True))["remote"] == len(JUNK)


def test_a_night_that_lost_its_tags_is_refused(two_nights):
    for state in ("open", "closed"):
        subprocess.run(
            ["git", "tag", "-d", f"night/2026-03-03/{state}"], cwd=two_nights.root, check=True, capture_output=True
        )
    with pytest.raises(NightError, match="night 2026-03-03 must have its tag"):
        collect(two_nights.root, 30)


def test_a_new_workspace_has_nothing_to_free(fresh):
    assert set(freed(collect(fresh.root, 30)).values()) == {0}
    assert not (fresh.root / ".stillhouse" / "mlflow.db").exists()
    assert Path(fresh.root / ".stillhouse").exists()
