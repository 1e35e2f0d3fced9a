"""When a backfill's nights are, what its clone begins with and where it may look: real git, no night."""

import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import filelock
import pytest
from workspaces import TINY, Workspace, make_workspace

from stillhouse.errors import NightError, ParamsError
from stillhouse.params.base import read_yaml
from tasks.backfill import clones, holding_backfills, open_backfill, own_environment, perform
from tasks.backfill_clone import source_of_past
from tasks.backfill_times import name_of, times

DAY = timedelta(days=1)
FILE = {**TINY, "source.kind": "file", "source.path": "events.csv", "source.items_path": "more/items.csv"}


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_nights_are_a_day_apart_at_the_first_ones_time_and_a_bare_last_day_is_whole():
    found = times("2026-03-01T03:00", "2026-03-03", DAY, "UTC")
    assert found == [utc(2026, 3, day, 3) for day in (1, 2, 3)]
    assert times("2026-03-01T03:00", "2026-03-03T02:59", DAY, "UTC") == found[:2]
    assert times("2026-03-01", "2026-03-01", DAY, "UTC") == [utc(2026, 3, 1)]
    assert len(times("2026-03-01", "2026-03-01", timedelta(hours=6), "UTC")) == 4


def test_summer_time_moves_no_night_of_whole_days_and_every_hour_is_an_hour():
    daily = times("2026-03-28T03:30", "2026-03-30", DAY, "Europe/Berlin")
    assert daily == [utc(2026, 3, 28, 2, 30), utc(2026, 3, 29, 1, 30), utc(2026, 3, 30, 1, 30)]
    hourly = times("2026-03-29T00:00", "2026-03-29T05:00", timedelta(hours=1), "Europe/Berlin")
    assert {after - before for before, after in pairwise(hourly)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("first", "last", "every", "says"),
    [
        ("2026-03-02", "2026-03-01", DAY, "from must not lie after to"),
        ("soon", "2026-03-01", DAY, r"\(--from\)"),
        ("2026-03-01", "late", DAY, r"\(--to\)"),
        ("2026-03-01", "2036-03-01", timedelta(minutes=1), "at most 5,000 nights"),
        ("2026-03-01", "2026-03-02", timedelta(0), "some time apart"),
        ("0001-01-01T00:00+02:00", "2026-03-02", DAY, r"from must be within the years 1 to 9999 .*\(--from\)"),
    ],
)
def test_times_that_are_none_are_refused(first, last, every, says):
    with pytest.raises(ParamsError, match=says):
        times(first, last, every, "UTC")


def test_the_end_of_the_calendar_ends_a_backfill():
    assert len(times("9999-12-30", "9999-12-31", DAY, "UTC")) == 2
    assert len(times("9999-12-30", "9999-12-31", timedelta(days=9_000_000), "UTC")) == 1


def test_a_backfill_is_named_after_its_first_and_last_night():
    assert name_of([utc(2026, 3, 1), utc(2026, 3, 5)], "UTC") == "2026-03-01_2026-03-05"
    assert name_of([utc(2026, 3, 1, 2)], "Europe/Berlin") == "2026-03-01T030000_2026-03-01T030000"


def test_nothing_of_the_live_lines_tracking_or_server_is_passed_on():
    live = dict.fromkeys(
        ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "STILLHOUSE_POOLS", "STILLHOUSE_ALERT_URLS"), "x"
    )
    own = dict.fromkeys(("PATH", "STILLHOUSE_SOURCE_PASSWORD", "STILLHOUSE_SIGNING_KEY", "AWS_PROFILE"), "x")
    assert own_environment({**live, **own}) == own


@pytest.fixture
def live(tmp_path):
    """A workspace with code and settings that are not committed, and a night's own files, which are."""
    workspace = make_workspace(tmp_path / "live", FILE)
    for name, text in (("dvc.lock", "schema: '2.0'\n"), ("previous.dvc", "outs: []\n")):
        (workspace.root / name).write_text(text)
    git(workspace, "add", "-A")
    git(workspace, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "a night")
    git(workspace, "tag", "night/2026-03-01/closed")
    (workspace.root / "src/stillhouse/extra.py").write_text('"""New."""\n')
    (workspace.root / "src/stillhouse/reporting.py").unlink()
    (workspace.root / "events.csv").write_text("user_id,item_id,timestamp\n")
    workspace.set({"seed": 5})
    return workspace


def git(workspace, *arguments):
    done = subprocess.run(["git", *arguments], cwd=workspace.root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_clone_has_the_code_as_it_is_and_none_of_the_live_lines_nights(live):
    before = [git(live, "status", "--porcelain"), git(live, "show-ref")]
    with open_backfill(live.root, "spring") as backfill:
        assert clones(live.root) == [backfill.clone]
    clone = Workspace(backfill.clone)
    assert clone.root == live.root / ".stillhouse" / "backfills" / "spring"
    assert (clone.root / "src/stillhouse/extra.py").exists()
    assert not any((clone.root / name).exists() for name in ("src/stillhouse/reporting.py", "dvc.lock", "previous.dvc"))
    assert (clone.tags(), git(clone, "remote")) == ([], "")
    params = read_yaml(clone.root / "params.yaml")
    assert (params["seed"], params["source"]["later_rows"]) == (5, "leave")
    assert params["source"]["path"] == str(live.root / "events.csv")
    assert params["source"]["items_path"] == str(live.root / "more" / "items.csv")
    local = (clone.root / ".dvc" / "config.local").read_text()
    assert str(live.root / ".dvc" / "cache") in local
    assert str(live.root / ".stillhouse" / "remote") in local
    assert [git(live, "status", "--porcelain"), git(live, "show-ref")] == before


def test_a_backfill_goes_on_with_the_code_and_the_source_that_it_began_with(live):
    for _ in range(2):
        with open_backfill(live.root, "spring") as backfill:
            assert backfill.notes == []
    live.set({"seed": 6})
    with open_backfill(live.root, "spring") as backfill:
        assert "have changed since" in backfill.notes[0]
        assert read_yaml(backfill.clone / "params.yaml")["seed"] == 5
    (live.root / "other.csv").touch()
    with pytest.raises(NightError, match="give another --name"), open_backfill(live.root, "spring", "other.csv"):
        pass
    with pytest.raises(NightError, match="from the live line"), open_backfill(backfill.clone, "nested"):
        pass


def test_one_backfill_of_a_name_runs_at_a_time_and_none_while_content_is_freed(live):
    with open_backfill(live.root, "spring"):
        with pytest.raises(NightError, match="found spring at work"), open_backfill(live.root, "spring"):
            pass
        with open_backfill(live.root, "autumn"):
            pass
        with pytest.raises(NightError, match="found spring"), holding_backfills(live.root):
            pass
    with (
        holding_backfills(live.root),
        pytest.raises(NightError, match="while `stillhouse gc` is at work"),
        open_backfill(live.root, "spring"),
    ):
        pass
    run = filelock.FileLock(live.root / ".stillhouse/backfills/spring/.stillhouse/run.lock")
    with run, pytest.raises(NightError, match="found one in spring"), holding_backfills(live.root):
        pass


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x.new", "x.lock"])
def test_a_name_that_is_no_folders_is_refused(live, name):
    with pytest.raises(ParamsError, match="--name"), open_backfill(live.root, name):
        pass
    assert not (live.root / ".stillhouse" / "backfills").exists()


def test_a_source_is_found_from_anywhere_and_must_tell_times(live):
    assert source_of_past(live.root, "shop")["later_rows"] == "leave"
    assert source_of_past(live.root, "sqlite:///shop.db")["url"] == f"sqlite:///{live.root / 'shop.db'}"
    for url in ("sqlite:////data/shop.db", "postgresql://host/db", "sqlite://"):
        assert source_of_past(live.root, url)["url"] == url
    with pytest.raises(ParamsError, match="must hold no password"):
        source_of_past(live.root, "postgresql://me:secret@host/db")
    live.set({"source.columns": {"user": "u", "item": "i", "timestamp": None, "position": "p"}})
    with pytest.raises(ParamsError, match="found positions"):
        source_of_past(live.root, None)


def test_a_clone_that_was_killed_half_made_is_made_anew(live):
    half = live.root / ".stillhouse" / "backfills" / "spring.new"
    (half / ".git").mkdir(parents=True)
    (half / "junk").write_text("half")
    with open_backfill(live.root, "spring") as backfill:
        assert not (backfill.clone / "junk").exists()
    assert sorted(path.name for path in half.parent.iterdir()) == ["spring", "spring.lock"]


def test_a_night_that_is_stopped_ends_the_backfill_unless_it_is_to_keep_going(live, capfd):
    nights = [utc(2026, 3, 1), utc(2026, 3, 2)]
    with open_backfill(live.root, "spring") as backfill:
        (live.root / "events.csv").unlink()
        stopped = [(one.state, one.code) for one in perform(backfill, nights, lambda at: None)]
        assert stopped == [("stopped", 2)]
        stopped = [(one.as_of, one.code) for one in perform(backfill, nights, lambda at: None, keep_going=True)]
        assert stopped == [(night, 2) for night in nights]
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 3
    assert all("found nothing at" in line for line in said)
