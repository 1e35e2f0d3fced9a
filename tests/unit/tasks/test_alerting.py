import subprocess
import sys

import pytest
from receivers import free_port, mailbox, webhook

from stillhouse.errors import AlertError, ParamsError
from tasks.alerting import deliver, shown, targets

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it

PASSWORD = "pw-that-nobody-sees"


def test_no_target_is_a_known_error(monkeypatch):
    for value in (None, "", "  "):
        monkeypatch.delenv("STILLHOUSE_ALERT_URLS", raising=False)
        if value is not None:
            monkeypatch.setenv("STILLHOUSE_ALERT_URLS", value)
        with pytest.raises(ParamsError, match="STILLHOUSE_ALERT_URLS must hold an Apprise URL"):
            targets()


def test_webhook_and_mail_have_the_words(monkeypatch):
    with webhook() as web, mailbox() as mail:
        options = "from=still@house.example&to=call@house.example&mode=insecure&format=text"
        urls = f"json://127.0.0.1:{web.port}/in\n mailto://127.0.0.1:{mail.port}?{options}"
        monkeypatch.setenv("STILLHOUSE_ALERT_URLS", urls)
        assert deliver.fn(1, "Title <&>", "Body ü\nline 2") == f"json://127.0.0.1:{web.port}"
        assert deliver.fn(2, "Title <&>", "Body ü\nline 2") == f"mailto://127.0.0.1:{mail.port}"
    for (got,) in (web.got, mail.got):
        assert got["title"] == "Title <&>"
        assert got["message"].replace("\r", "").strip() == "Body ü\nline 2"


@pytest.mark.parametrize("refuses", [True, False])
def test_a_target_that_takes_no_alert_is_named_by_kind_and_host_alone(monkeypatch, caplog, capfd, refuses):
    with webhook(refusals=9) as web:
        port = web.port if refuses else free_port()
        monkeypatch.setenv("STILLHOUSE_ALERT_URLS", f"json://me:{PASSWORD}@127.0.0.1:{port}/{PASSWORD}?k={PASSWORD}")
        with pytest.raises(AlertError) as caught:
            deliver.fn(1, "t", "b")
    assert f"number 1 of STILLHOUSE_ALERT_URLS (json://127.0.0.1:{port}) did not" in str(caught.value)
    assert PASSWORD not in str(caught.value) + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("url", [f"nonsense://{PASSWORD}@host", f"json://me:{PASSWORD}@", PASSWORD, "slack://x"])
def test_a_url_that_apprise_does_not_know_is_refused_without_showing_it(monkeypatch, url):
    monkeypatch.setenv("STILLHOUSE_ALERT_URLS", url)
    with pytest.raises(ParamsError) as caught:
        deliver.fn(1, "t", "b")
    assert PASSWORD not in str(caught.value)
    assert "number 1" in str(caught.value)


def test_apprise_says_nothing_through_handlers_of_others(tmp_path):
    code = (
        "import logging; logging.basicConfig(level=0)\n"
        "from tasks.alerting import deliver\n"
        "from stillhouse.errors import ParamsError\n"
        "try: deliver.fn(1, 't', 'b')\n"
        "except ParamsError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"STILLHOUSE_ALERT_URLS": f"nonsense://{PASSWORD}", "PREFECT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("json://host.example", "json://host.example"),
        (f"jsons://me:{PASSWORD}@host.example:8443/in", "jsons://host.example:8443"),
        (f"mailto://me:{PASSWORD}@host.example?to=a@b.example", "mailto://host.example"),
        (f"json://{PASSWORD}/rest@host.example", "json://"),
        (f"json://me:{PASSWORD}?x@host.example", "json://"),
        (f"json://me:{PASSWORD}#x@host.example", "json://"),
        (f"json://[{PASSWORD}@host", "json://"),
        (f"slack://{PASSWORD}/b/c", "slack://"),
        (f"https://hooks.example/{PASSWORD}", "https://"),
        (f"{PASSWORD}://x", "one that is no URL"),
        (PASSWORD, "one that is no URL"),
    ],
)
def test_what_is_said_of_a_target_holds_nothing_secret(url, said):
    assert shown(url) == said
