"""Where a night's own lines send a person."""

import pytest

from tasks.summary import _prefect_ui


@pytest.mark.parametrize(
    ("served", "shown"),
    [
        (None, "PREFECT_HOME=.stillhouse/prefect prefect server start"),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
    ],
)
def test_the_ui_is_that_of_the_server_that_the_night_ran_on(monkeypatch, served, shown):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if served:
        monkeypatch.setenv("PREFECT_API_URL", served)
    assert _prefect_ui() == shown


def test_a_password_in_the_servers_address_is_not_shown(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://me:hunter2@host:4200/api")
    assert "hunter2" not in _prefect_ui()
