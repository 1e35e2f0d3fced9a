import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from stillhouse.lineage.entry import Entry, Numbered
from stillhouse.params.alerts import AlertsParams
from tasks import watching
from tasks.night import Night
from tasks.versions import CLOSED, tag_night
from tasks.watching import Champion, Due, look_out, missed, old

NOW = datetime(2026, 3, 10, 9, tzinfo=UTC)
ALERTS = AlertsParams(max_late_hours=3, max_champion_days=14)


def day(number, hour=3):
    return datetime(2026, 3, number, hour, tzinfo=UTC)


def late(*dues, after=(), now=NOW):
    return [due.time.day for due in missed(dues, now=now, after=after, alerts=ALERTS)]


def test_a_time_without_a_run_is_missed_once_it_is_late_enough():
    assert late(Due(day(10))) == [10]
    assert late(Due(day(10)), now=day(10, 6)) == []
    assert late(Due(day(10)), now=day(10, 6) + timedelta(seconds=1)) == [10]


def test_times_up_to_the_last_closed_night_the_last_handled_and_the_last_told_are_well():
    dues = [Due(day(number)) for number in (7, 8, 9, 10)]
    assert late(*dues, after=[day(7), None, None]) == [8, 9, 10]
    assert late(*dues, after=[day(7), day(9), None]) == [10]
    assert late(*dues, after=[day(7), day(9), day(10)]) == []


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        *((kind, False) for kind in ("RUNNING", "PAUSED", "CANCELLING", "COMPLETED")),
        *((kind, True) for kind in ("SCHEDULED", "PENDING", "FAILED", "CRASHED", "CANCELLED")),
    ],
)
def test_a_run_at_work_or_completed_is_no_missed_night_and_one_that_waits_or_ended_badly_is(kind, told):
    assert late(Due(day(10), kind, kind.title())) == ([10] if told else [])


def test_a_line_says_when_the_night_was_due_and_what_became_of_it():
    assert Due(day(10)).line == "2026-03-10 03:00 UTC: no run was made"
    assert Due(day(10), "SCHEDULED", "Late").line == "2026-03-10 03:00 UTC: its run is Late"


def test_a_champion_is_old_beyond_its_days_and_not_at_them():
    assert old(Champion(1, NOW - timedelta(days=14)), now=NOW, alerts=ALERTS) is None
    assert old(Champion(1, NOW - timedelta(days=15)), now=NOW, alerts=ALERTS) == 15.0
    assert old(None, now=NOW, alerts=ALERTS) is None


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace whose night of 7 March has closed; the schedule, and who listens, are the test's."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    params = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())
    params["alerts"] = {"max_quarantined": 0.01, "max_champion_days": 14, "max_late_hours": 3}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    closed = Night(
        id="2026-03-07",
        as_of=day(7).isoformat(),
        source={"kind": "file"},
        fingerprint="0",
        cold=True,
        previous=None,
        revises=None,
        champion=None,
    )
    (tmp_path / "night.yaml").write_text(json.dumps(closed.document()))
    tag_night(tmp_path, closed.id, CLOSED, "closed", ["night.yaml"])
    told = []
    monkeypatch.setattr(watching, "tell_missed", lambda _root, lines: told.append(lines) or True)
    monkeypatch.setattr(watching, "tell_old", lambda _root, version, days, _limit: told.append((version, days)) or True)
    monkeypatch.setattr(
        watching, "nights_due", lambda now, since: [Due(day(n)) for n in range(1, 32) if since < day(n) <= now]
    )
    return tmp_path, told


def test_each_missed_night_is_told_of_once(workspace):
    root, told = workspace
    look_out(root, NOW)
    assert [line[:10] for line in told.pop()] == ["2026-03-08", "2026-03-09", "2026-03-10"]
    assert look_out(root, NOW + timedelta(hours=1)) == []
    look_out(root, NOW + timedelta(days=1))
    assert [line[:10] for line in told.pop()] == ["2026-03-11"]
    assert not told


def test_what_the_scheduled_flow_has_handled_is_not_missed(workspace):
    root, told = workspace
    (root / ".stillhouse").mkdir()
    (root / ".stillhouse" / "scheduled.json").write_text('{"through": "2026-03-09T03:00:00+00:00"}')
    look_out(root, NOW)
    assert [line[:10] for line in told.pop()] == ["2026-03-10"]


def test_what_nobody_heard_is_told_again(workspace, monkeypatch):
    root, told = workspace
    monkeypatch.setattr(watching, "tell_missed", lambda _root, _lines: False)
    assert look_out(root, NOW) == []
    monkeypatch.setattr(watching, "tell_missed", lambda _root, lines: told.append(lines) or True)
    assert len(look_out(root, NOW)) == 3


def test_a_damaged_record_of_what_was_told_tells_once_more(workspace):
    root, told = workspace
    look_out(root, NOW)
    for damaged in ("{", "[]", '{"missed_through": 3}', '{"missed_through": "soon"}'):
        (root / ".stillhouse" / "watched.json").write_text(damaged)
        look_out(root, NOW)
    assert len(told) == 5


def test_an_old_champion_is_told_of_once_a_day(workspace, monkeypatch):
    root, told = workspace
    monkeypatch.setattr(watching, "nights_due", lambda _now, _since: [])
    monkeypatch.setattr(watching, "champion_of", lambda _root: Champion(3, NOW - timedelta(days=20)))
    for hours in (0, 1, 24):
        look_out(root, NOW + timedelta(hours=hours))
    assert told == [(3, 20.0), (3, 21.0)]


def test_a_champions_time_is_that_of_the_student_and_of_no_teacher_of_its_number(tmp_path, monkeypatch):
    plain = {"night": None, "package": "0" * 64, "reason": "r", "actor": "gate", "version": 2}
    entries = [
        Entry(key="1", kind="registered", model="teacher", name="teacher", time="2026-01-05T12:00:00+00:00", **plain),
        Entry(key="2", kind="registered", name="gru", time="2026-03-01T12:00:00+00:00", **plain),
        Entry(key="3", kind="promoted", name="gru", time="2026-03-02T12:00:00+00:00", **plain),
    ]
    numbered = [Numbered(number, "h", entry) for number, entry in enumerate(entries, 1)]
    monkeypatch.setattr(watching, "ledger_entries", lambda _root: numbered)
    assert watching.champion_of(tmp_path) == Champion(2, datetime(2026, 3, 1, 12, tzinfo=UTC))
