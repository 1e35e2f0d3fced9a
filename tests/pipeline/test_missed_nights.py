"""Nights that were missed are caught up by the scheduled flow: oldest first, each by its own time and its own past."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
from workspaces import TINY, make_workspace

from stillhouse.runner.stage import STATE
from tasks import versions
from tasks.night import closed_night

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

USERS, ITEMS, DAYS = 60, 40, 40

DEPLOY = "import pathlib; from tasks.deploying import deploy; deploy(pathlib.Path.cwd())"
RUN = "from flows.scheduled import scheduled; scheduled()"


@pytest.fixture
def shop_of_today(tmp_path, prefect_server):
    """A workspace on a file that is added to all day: its rows go on to this minute."""
    columns = {"user": "u", "item": "i", "timestamp": "t", "position": None, "rating": None, "event": None}
    own = {"source.kind": "file", "source.path": "events.csv", "source.columns": columns}
    workspace = make_workspace(tmp_path / "workspace", {**TINY, **own, "admit.max_quarantined": 0.0})
    workspace.server = prefect_server
    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    times = np.sort(now.timestamp() - rng.uniform(0, DAYS * 86_400, USERS * DAYS)).astype(int)
    rows = {"u": rng.integers(USERS, size=len(times)), "i": rng.integers(ITEMS, size=len(times)), "t": times}
    frame = pd.DataFrame(rows).drop_duplicates(["u", "i"], keep="first")
    frame.to_csv(workspace.root / "events.csv", index=False)
    return workspace


def run(workspace, code):
    environment = {**workspace.environment, "STILLHOUSE_WORKSPACE": str(workspace.root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace.root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def test_three_missed_nights_come_one_after_another_each_with_its_own_rows(shop_of_today):
    root = shop_of_today.root
    run(shop_of_today, DEPLOY)
    latest = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    if latest > datetime.now(UTC):
        latest -= timedelta(days=1)
    due = [latest - timedelta(days=days) for days in (2, 1, 0)]
    (root / STATE).mkdir(exist_ok=True)
    (root / STATE / "scheduled.json").write_text(json.dumps({"through": (due[0] - timedelta(days=1)).isoformat()}))
    run(shop_of_today, RUN)
    nights = versions.nights(root, versions.CLOSED)
    assert nights == [f"{moment:%Y-%m-%dT%H%M%S}" for moment in due]
    assert [closed_night(root, night).as_of for night in nights] == [moment.isoformat() for moment in due]
    last = max(ds.dataset(root / "data/snapshot/interactions").to_table(columns=["time"])["time"].to_pylist())
    assert last <= due[-1].timestamp(), "rows after its time are a later night's"
    assert json.loads((root / STATE / "scheduled.json").read_text())["through"] == due[-1].isoformat()
