"""Alerts leave through Apprise, to the targets that the environment names; no address is printed or logged."""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import urlsplit

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from stillhouse.errors import AlertError, ParamsError

__all__ = ["TARGETS", "deliver", "shown", "targets"]

#: Environment variable with Apprise's URLs, parted by spaces. They hold passwords and tokens.
TARGETS = "STILLHOUSE_ALERT_URLS"

#: Kinds of target whose URL names a host in its place; with others (``slack://``) a token stands there.
_WITH_HOST = frozenset({"form", "forms", "json", "jsons", "mailto", "mailtos", "xml", "xmls"})

#: Seconds before each further attempt.
_DELAYS = [2.0, 15.0, 60.0, 300.0]


def targets() -> list[str]:
    """Return the URLs that alerts go to.

    Raises:
        ParamsError: there is none: an alert that goes nowhere must not look sent.
    """
    urls = os.environ.get(TARGETS, "").split()
    if not urls:
        raise ParamsError(
            f"{TARGETS} must hold an Apprise URL or several, parted by spaces, found none in the environment of the "
            "worker that runs the flow alert: set it there, such as mailtos://USER:PASSWORD@HOST?to=ADDRESS"
        )
    return urls


def shown(url: str) -> str:
    """Return what may be said of a target: its kind, and its host where that is certainly no secret.

    >>> [shown("json://me:pw@alerts.example:8080/in?key=1"), shown("slack://T1JJ/A1BR/TIia")]
    ['json://alerts.example:8080', 'slack://']
    >>> shown("json://me:p/w@alerts.example")
    'json://'
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if not scheme.isalnum():
        return "one that is no URL"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a ":" or "[" that belongs to a password
        return f"{scheme}://"
    if scheme not in _WITH_HOST or not host or "@" in parts.path + parts.fragment:
        return f"{scheme}://"
    return f"{scheme}://{host}" + (f":{port}" if port else "")


def _may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """A receiver may be back in a moment; a URL that is none, or a defect, stays one."""
    return isinstance(state.result(raise_on_failure=False), AlertError)


@task(
    task_run_name="target {number}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(_DELAYS),
    retry_delay_seconds=_DELAYS,
    retry_condition_fn=_may_pass,
)
def deliver(number: int, title: str, body: str) -> str:
    """Send an alert to the target that stands in place ``number`` (from 1), and return what may be said of it.

    The place goes through Prefect in the target's stead: its URL is a secret. Each target has a task run of its
    own, so that another attempt bothers none that has taken it.

    Raises:
        ParamsError: there is no such target, or its URL is none of Apprise's.
        AlertError: the target did not take the alert.
    """
    import apprise

    # Of a URL that it cannot read, Apprise logs the whole: nothing of what it says may reach a handler.
    logging.getLogger("apprise").propagate = False
    urls = targets()
    if number > len(urls):
        raise ParamsError(
            f"{TARGETS} must not change while an alert goes out, found {len(urls)} targets: send it again"
        )
    url = urls[number - 1]
    asset = apprise.AppriseAsset(app_id="Stillhouse", app_desc="Stillhouse", app_url="", async_mode=False)
    target = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if not isinstance(target, apprise.NotifyBase):
        raise ParamsError(
            f"every part of {TARGETS} must be a URL that Apprise knows, number {number} ({shown(url)}) is not: "
            "write it as Apprise's documentation has it, percent-encoded"
        )
    if not target.notify(title=title, body=body, notify_type=apprise.NotifyType.FAILURE, body_format="text"):
        raise AlertError(
            f"every target must take an alert, number {number} of {TARGETS} ({shown(url)}) did not: look whether it "
            "is reached from the worker, and whether its credentials hold"
        )
    return shown(url)
