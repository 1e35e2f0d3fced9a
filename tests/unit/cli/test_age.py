from datetime import timedelta

import pytest

from stillhouse.cli.age import parse_age, show_age
from stillhouse.errors import ParamsError


@pytest.mark.parametrize(("text", "hours"), [("26h", 26), ("90m", 1.5), ("2d", 48), ("3600s", 1), (" 1.5h ", 1.5)])
def test_ages_are_read(text, hours):
    assert parse_age(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["26", "h", "-3h", "26 hours", ""])
def test_what_is_no_age_is_refused(text):
    with pytest.raises(ParamsError, match="--max-age"):
        parse_age(text)


def test_the_option_that_an_age_was_given_to_is_named():
    with pytest.raises(ParamsError, match="--timeout"):
        parse_age("soon", "--timeout")


def test_an_age_beyond_all_counting_is_refused():
    with pytest.raises(ParamsError, match=r"at most \d+d, got '9999999999d'"):
        parse_age("9999999999d")


@pytest.mark.parametrize(("age", "shown"), [(5, "5 s"), (600, "10 min"), (36_000, "10 h"), (864_000, "10 d")])
def test_ages_are_shown_in_a_sensible_unit(age, shown):
    assert show_age(timedelta(seconds=age)) == shown
