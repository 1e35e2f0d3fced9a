"""Past nights run in a workspace of their own, see only their own past, and leave the live line as it is."""

import contextlib
import json
import signal
import subprocess
import time
from datetime import datetime, timedelta

import psutil
import pytest
from workspaces import Workspace

from stillhouse.data.shop import first_as_of, shop_rows
from stillhouse.errors import NightError
from stillhouse.params.source import ShopSpec
from stillhouse.tracking import ledger_store
from stillhouse.tracking.store import connect
from tasks.collection import collect

pytestmark = pytest.mark.slow

FIRST, SECOND, THIRD = (f"2026-03-{day:02}T03:00:00+00:00" for day in (2, 3, 4))
ASKED = ("--from", "2026-03-02T03:00", "--to", "2026-03-04", "--source", "events.csv", "--name", "spring")

#: Prints each closed night with the latest moment in its snapshot.
_LATEST = """
import json, sys, tempfile
from pathlib import Path
import pyarrow.dataset
from tasks import graph, versions
root, found = Path.cwd(), {}
for night in versions.nights(root, versions.CLOSED):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "snapshot"
        assert graph.copy_at(root, versions.tag_commit(root, night, versions.CLOSED), "data/snapshot", place)
        rows = pyarrow.dataset.dataset(place / "interactions").to_table()
        found[night] = max(rows["time"].to_pylist())
print(json.dumps(found))
"""


@pytest.fixture
def live(closed, monkeypatch):
    """The live line, with a champion on the built-in shop, and a file of events that goes on after the nights.

    Of the second night's day it holds nothing.
    """
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spec = ShopSpec(size="tiny")
    rows = shop_rows(spec, first_as_of(spec) + timedelta(days=6)).to_pandas().rename(columns={"time": "timestamp"})
    rows = rows.dropna(subset=["user_id", "item_id", "timestamp"])
    second, third = (datetime.fromisoformat(text).timestamp() for text in (FIRST, SECOND))
    rows = rows[rows["timestamp"].between(1_600_000_000, 2_000_000_000)]
    rows = rows[(rows["timestamp"] <= second) | (rows["timestamp"] > third)]
    rows.to_csv(closed.root / "events.csv", index=False)
    assert rows["timestamp"].max() > datetime.fromisoformat(THIRD).timestamp()
    return closed


def standing(workspace):
    """Everything of the live line that a backfill must leave alone."""
    client = connect(workspace.root).client
    said = [
        subprocess.run(["git", *words], cwd=workspace.root, capture_output=True, check=True).stdout
        for words in (["show-ref"], ["status", "--porcelain"])
    ]
    own = [(workspace.root / name).read_bytes() for name in ("night.yaml", "previous.dvc", "dvc.lock", "params.yaml")]
    aliases = dict(client.get_registered_model("student").aliases)
    return said, own, aliases, ledger_store.read(workspace.root), [one.version for one in _versions(client)]


def _versions(client):
    return client.search_model_versions("name = 'student'")


@pytest.mark.drill
def test_past_nights_run_beside_the_live_line_and_go_on_after_a_kill(live):
    before = standing(live)
    clone = Workspace(live.root / ".stillhouse" / "backfills" / "spring")
    backfill = live.start("backfill", *ASKED)
    deadline = time.monotonic() + 400
    while not ("night/2026-03-04T030000/open" in _tags(clone) and (running := clone.stage_processes("train_teacher"))):
        assert backfill.poll() is None, backfill.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused = live.run("backfill", *ASKED, code=2)
    assert "found spring at work" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    with pytest.raises(NightError, match="while a backfill is at work"):
        collect(live.root, 30)
    backfill.send_signal(signal.SIGKILL)
    backfill.communicate()
    _, alive = psutil.wait_procs(running, timeout=30)
    assert not alive
    first = clone.lock()["ingest"]["outs"]
    assert standing(live) == before

    done = live.run("backfill", *ASKED, "--json")
    told = json.loads(done.out)
    assert [(row["as_of"], row["state"]) for row in told["nights"]] == [
        *((FIRST, "before"), (SECOND, "nothing"), (THIRD, "closed")),
    ]
    verdicts = [row["verdict"] for row in told["nights"] if "verdict" in row]
    assert verdicts[0] == "promoted"
    assert verdicts[1].startswith("refused: inconclusive")  # a day of few users, after one of none
    assert clone.lock()["ingest"]["outs"] == first  # it went on, from what it had
    assert clone.tags() == [
        f"night/2026-03-{day}T030000/{state}" for day in ("02", "04") for state in ("closed", "open")
    ]
    assert standing(live) == before

    latest = clone.python(_LATEST)
    assert latest.returncode == 0, latest.stderr
    for night, moment in json.loads(latest.stdout).items():
        as_of = datetime.strptime(f"{night}+0000", "%Y-%m-%dT%H%M%S%z").timestamp()
        assert as_of - 86_400 < moment <= as_of

    shown = live.run("backfill", *ASKED).out
    assert "nothing new" in shown
    assert "stillhouse -C .stillhouse/backfills/spring history" in shown
    assert collect(live.root, 1).objects > 0
    clone.run("audit", "student@champion")  # what the backfill reaches was kept
    assert clone.dvc("status").stdout.startswith("Data and pipelines are up to date")
    assert "run gc in the workspace that it belongs to" in clone.run("gc", code=2).err
    assert standing(live) == before


def _tags(workspace):
    with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
        return workspace.tags()
    return []
