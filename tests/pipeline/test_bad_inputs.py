"""Each bad input ends the night with one clear line and exit code 2, and the champion stays what it was.

CI spoils a first night, before which there is no champion. That a champion stays is what the drill of three nights
shows there; `make drill` shows it here, after a whole night on files.
"""

import numpy as np
import pandas as pd
import pytest
from workspaces import TINY, clone, make_workspace

from tasks.champion import champion_line

pytestmark = pytest.mark.slow

FILE = {
    **TINY,
    "source.kind": "file",
    "source.path": "events.csv",
    "source.items_path": "items.csv",
    "source.columns": {
        "user": "user",
        "item": "item",
        "timestamp": "time",
        "position": None,
        "rating": "rating",
        "event": None,
    },
    "source.item_columns": {"item": "item", "title": "title", "text": None, "category": None, "separator": "|"},
}
DAY = 86_400
END = 1_772_323_200  # 2026-03-01T00:00:00Z


def good():
    """Sixty users who walk around a ring of forty items, twenty steps each, over twenty days."""
    random = np.random.default_rng(5)
    rows = []
    for user in range(60):
        place = int(random.integers(40))
        for step in range(20):
            place = (place + int(random.integers(1, 3))) % 40
            rows.append((user, place, END - 20 * DAY + step * DAY + user * 60, float(random.integers(1, 6))))
    return pd.DataFrame(rows, columns=["user", "item", "time", "rating"]).sort_values("time", kind="stable")


def catalogue():
    return pd.DataFrame({"item": range(40), "title": [f"Item {i}" for i in range(40)]})


@pytest.fixture(scope="session")
def files(once):
    """A workspace on good CSV files in which no night has run, with a registry that is empty."""

    def make(root):
        workspace = make_workspace(root, FILE)
        good().to_csv(root / "events.csv", index=False)
        catalogue().to_csv(root / "items.csv", index=False)
        return champion_line(workspace.root)

    return once("files", make)[0]


@pytest.fixture
def new(files, tmp_path, prefect_server):
    """A copy of the workspace in which no night has run."""
    return clone(files, tmp_path / "workspace", prefect_server)


@pytest.fixture(scope="session")
def on_a_file(once, files, prefect_server):
    """A workspace in which one night on good CSV files has closed."""
    return once("on-a-file", lambda root: clone(files, root, prefect_server).run("run", "--as-of", "2026-03-01").out)[0]


def table(change):
    def write(root):
        frame = good().astype(object)
        change(frame)
        frame.to_csv(root / "events.csv", index=False)

    return write


def text_where_numbers_belong(frame):
    frame["rating"] = "lots"


def null_ids(frame):
    frame.loc[frame.index[::4], "user"] = None


def future_timestamps(frame):
    frame["time"] += 400 * DAY


def millisecond_timestamps(frame):
    frame["time"] *= 1000


def every_row_a_duplicate(frame):
    frame[["user", "item", "time"]] = [1, 2, END - DAY]


def one_user(frame):
    frame["user"] = 1
    frame["time"] = range(END - len(frame), END)


def one_item(frame):
    frame["item"] = 1


def nan_ratings(frame):
    frame["rating"] = "NaN"


def long_ids(frame):
    frame["user"] = [f"{'x' * 10_000}{user}" for user in frame["user"]]


def missing_column(root):
    good().drop(columns="item").to_csv(root / "events.csv", index=False)


def empty_file(root):
    (root / "events.csv").write_bytes(b"")


def header_alone(root):
    good().iloc[:0].to_csv(root / "events.csv", index=False)


def not_utf8(root):
    (root / "events.csv").write_bytes(good().to_csv(index=False).encode() + "José,2,1771000000,3\n".encode("latin-1"))


def items_that_lack(root):
    good().to_csv(root / "events.csv", index=False)
    catalogue().iloc[:5].to_csv(root / "items.csv", index=False)


def gone(root):
    (root / "events.csv").unlink()


def half(root):
    frame = good()
    frame.iloc[: len(frame) // 2].to_csv(root / "events.csv", index=False)


CASES = {
    "a missing column": (missing_column, ["column", "item", "user"]),
    "text where numbers belong": (table(text_where_numbers_belong), ["rating", "lots"]),
    "an empty file": (empty_file, ["events.csv", "empty"]),
    "a header alone": (header_alone, ["rows"]),
    "null ids": (table(null_ids), ["user"]),
    "future timestamps": (table(future_timestamps), ["as_of"]),
    "millisecond timestamps": (table(millisecond_timestamps), ["millisecond"]),
    "every row a duplicate": (table(every_row_a_duplicate), ["repeat", "timestamp"]),
    "one user": (table(one_user), ["user"]),
    "one item": (table(one_item), ["item"]),
    "NaN ratings": (table(nan_ratings), ["rating"]),
    "an item table that lacks items": (items_that_lack, ["item"]),
    "bytes that are not UTF-8": (not_utf8, ["UTF-8", "events.csv"]),
    "ids of 10,000 characters": (table(long_ids), ["id", "10"]),
    "a source that does not exist": (gone, ["events.csv"]),
    "half the volume of last night": (half, ["600", "1,200"]),
}


def standing(workspace):
    return champion_line(workspace.root), [tag for tag in workspace.tags() if tag.endswith("closed")]


def refused(workspace, *arguments, words, **settings):
    before = standing(workspace)
    night = workspace.run("run", *arguments, code=2, **settings)
    lines = [line for line in night.err.splitlines() if line.startswith("stillhouse: ")]
    assert len(lines) == 1, night.err
    assert "Traceback" not in night.err
    assert len(lines[0]) < 800
    for word in words:
        assert word.lower() in lines[0].lower(), lines[0]
    assert standing(workspace) == before
    return lines[0]


@pytest.mark.drill  # unit tests of sources and contract refuse the same without a night
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_line_and_the_champion_stays(on_a_file, tmp_path, prefect_server, name):
    workspace = clone(on_a_file, tmp_path / "workspace", prefect_server)
    assert "version 1" in standing(workspace)[0]
    spoil, words = CASES[name]
    spoil(workspace.root)
    refused(workspace, "--as-of", "2026-03-02", words=words)


@pytest.mark.parametrize("name", ["a missing column", "a source that does not exist"])
def test_the_first_night_on_bad_input_is_refused_in_one_line_and_promotes_nothing(new, name):
    spoil, words = CASES[name]
    spoil(new.root)
    refused(new, "--as-of", "2026-03-01", words=words)
    assert "version" not in standing(new)[0]


@pytest.mark.drill  # fourteen nights do so after their bad one
def test_the_night_goes_on_when_the_input_is_mended(on_a_file, tmp_path, prefect_server):
    workspace = clone(on_a_file, tmp_path / "workspace", prefect_server)
    half(workspace.root)
    refused(workspace, "--as-of", "2026-03-02", words=["600"])
    frame = good()
    later = frame.tail(60).assign(time=lambda rows: rows["time"] + DAY, item=lambda rows: (rows["item"] + 7) % 40)
    pd.concat([frame, later]).to_csv(workspace.root / "events.csv", index=False)
    workspace.run("run", "--as-of", "2026-03-02")
    assert "night/2026-03-02/closed" in workspace.tags()


SQL = {"source.kind": "sql", "source.query": "select * from events", "source.items_path": None}


def test_a_database_that_is_down_is_named_without_its_password(new):
    new.set({**SQL, "source.url": "postgresql+psycopg://shop@127.0.0.1:1/shop"})
    line = refused(new, "--as-of", "2026-03-01", words=["127.0.0.1", "database"], env={"PGPASSWORD": "hunter2"})
    assert "hunter2" not in line


def test_a_password_in_the_url_is_refused_and_never_shown_or_kept(new):
    new.set({**SQL, "source.url": None})
    line = refused(
        new,
        "--source",
        "postgresql+psycopg://shop:hunter2@127.0.0.1:1/shop",
        "--as-of",
        "2026-03-01",
        words=["password", "environment"],
    )
    assert "hunter2" not in line
    files = [path for path in new.root.rglob("*") if path.is_file()]
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []
