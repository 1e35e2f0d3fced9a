"""When nights are due: by the schedule alone, each missed one by its own time."""

import subprocess
from datetime import UTC, datetime

import pytest
from prefect.server.schemas.schedules import CronSchedule

from tasks.schedule import due_times, handled, handled_through, nights_due

AT_THREE = [CronSchedule(cron="0 3 * * *", timezone="UTC")]


@pytest.fixture
def root(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def at(day, hour=3):
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def test_nights_are_due_after_the_last_and_up_to_now():
    assert due_times(AT_THREE, at(1), at(3)) == [at(2), at(3)]
    assert due_times(AT_THREE, at(1), at(2, 2)) == []


def test_a_schedule_of_another_zone_is_due_by_its_own_clock():
    winter = [CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")]
    assert due_times(winter, at(1), at(2)) == [at(2, 2)]


def test_more_than_a_month_of_missed_nights_is_cut_to_the_last():
    found = due_times(AT_THREE, datetime(2026, 1, 1, tzinfo=UTC), at(3))
    assert len(found) == 31
    assert found[-1] == at(3)


def test_the_first_scheduled_night_is_alone(root):
    assert nights_due(root, AT_THREE, at(9), by_schedule=True) == [at(9)]


def test_a_first_night_that_failed_is_due_again(root):
    assert nights_due(root, AT_THREE, at(9), by_schedule=True, since=at(7, 12)) == [at(8), at(9)]
    assert nights_due(root, AT_THREE, at(9), by_schedule=True, since=at(9, 1)) == [at(9)]
    assert nights_due(root, AT_THREE, at(9, 2), by_schedule=True, since=at(8, 4)) == []


def test_a_run_that_begins_late_performs_what_has_become_due_meanwhile(root):
    handled(root, at(5))
    assert nights_due(root, AT_THREE, at(8, 1), by_schedule=True, since=at(1)) == [at(6), at(7)]
    handled(root, at(7))
    assert nights_due(root, AT_THREE, at(8, 4), by_schedule=True, since=at(1)) == [at(8)]


def test_a_person_who_starts_the_first_run_gets_the_night_that_was_due(root):
    assert nights_due(root, AT_THREE, at(9, 15), by_schedule=False) == [at(9)]
    assert nights_due(root, [], at(9, 15), by_schedule=False) == [None]


def test_missed_nights_come_first_each_by_its_own_time(root):
    handled(root, at(5))
    assert nights_due(root, AT_THREE, at(8), by_schedule=True) == [at(6), at(7), at(8)]
    handled(root, at(7))
    assert nights_due(root, AT_THREE, at(8), by_schedule=True) == [at(8)]


def test_a_run_whose_night_another_run_has_performed_has_nothing_to_do(root):
    handled(root, at(8))
    assert nights_due(root, AT_THREE, at(8), by_schedule=True) == []
    assert nights_due(root, AT_THREE, at(8, 12), by_schedule=False) == [None]


def test_what_was_handled_never_goes_back(root):
    handled(root, at(8))
    handled(root, at(3))
    assert handled_through(root) == at(8)
