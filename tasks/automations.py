"""The Prefect server's automations, brought in line with ``deploy/automations.yaml``: what alerts, and what is dead."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from pydantic import ValidationError

from stillhouse.errors import ParamsError, one_line
from stillhouse.params.base import read_yaml

__all__ = ["FILE", "OURS", "apply"]

#: Where the automations stand, from the root of the repository.
FILE = Path("deploy") / "automations.yaml"
#: How the name of each begins; others are somebody else's.
OURS = "stillhouse: "


def apply(root: Path) -> list[str]:
    """Create, update and remove automations until the server's are those in ``deploy/automations.yaml``.

    Done twice it changes nothing, so that a run whose heartbeat is being waited for is not forgotten. One that was
    switched off by hand stays off. Automations without our prefix are left alone.

    Args:
        root: the repository.

    Returns:
        A line for each that was created, updated or removed.

    Raises:
        ParamsError: the file is wrong, or a deployment that it names is not on the server.
    """
    with get_client(sync_client=True) as client:
        wanted = _wanted(root / FILE, client)
        found = _ours(client)
        lines = []
        for name, automation in wanted.items():
            several = found.pop(name, [])
            first, doubles = (several[0] if several else None), several[1:]
            lines += [f"{word} {name}" for word in _bring(client, automation, first)]
            lines += [f"removed  {name} (there twice)" for one in doubles if _remove(client, one)]
        lines += [f"removed  {name}" for name, several in found.items() for one in several if _remove(client, one)]
    return lines


def _bring(client: SyncPrefectClient, wanted: AutomationCore, found: Automation | None) -> list[str]:
    try:
        if found is None:
            client.create_automation(wanted)
            return ["created "]
        kept = wanted.model_copy(update={"enabled": found.enabled})
        if _plain(kept) == _plain(found):
            return []
        client.update_automation(found.id, kept)
        return ["updated "]
    except PrefectHTTPStatusError as error:
        said = error.response.text
        raise ParamsError(one_line(f"the server must take {wanted.name!r}, it said: {said} ({FILE})")) from None


def _plain(automation: AutomationCore) -> Any:
    """Return an automation as it compares: without what the server adds, sets of events as sets."""
    return AutomationCore.model_validate(automation.model_dump()).model_dump()


def _remove(client: SyncPrefectClient, automation: Automation) -> bool:
    client.delete_automation(automation.id)
    return True


def _ours(client: SyncPrefectClient) -> dict[str, list[Automation]]:
    """Return our automations by name, the oldest of several first: two deploys at once may have made one each."""
    found: list[Automation] = []
    while page := client.read_automations(limit=200, offset=len(found)):
        found += page
    named: dict[str, list[Automation]] = {}
    for one in sorted(found, key=lambda one: str(one.id)):  # ids of the server rise with time
        if one.name.startswith(OURS):
            named.setdefault(one.name, []).append(one)
    return named


def _wanted(path: Path, client: SyncPrefectClient) -> dict[str, AutomationCore]:
    listed = read_yaml(path).get("automations")
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise ParamsError(f"{FILE} must hold a list of automations under the key automations, found none")
    wanted: dict[str, AutomationCore] = {}
    for one in listed:
        name = str(one.get("name", ""))
        if not name.startswith(OURS) or name in wanted:
            raise ParamsError(
                f"each automation must have a name of its own that begins with {OURS!r}, got {name!r} ({FILE})"
            )
        try:
            wanted[name] = AutomationCore.model_validate(_resolved(one, client))
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ParamsError(one_line(f"{name!r} must be an automation of Prefect's: {said} ({FILE})")) from None
    return wanted


def _resolved(automation: Mapping[str, Any], client: SyncPrefectClient) -> dict[str, Any]:
    """Return an automation with the ids of the deployments that its actions name."""
    resolved = copy.deepcopy(dict(automation))
    for action in resolved.get("actions") or []:
        if isinstance(action, dict) and "deployment" in action:
            name = str(action.pop("deployment"))
            try:
                action["deployment_id"] = client.read_deployment_by_name(name).id
            except (ObjectNotFound, ValueError):
                raise ParamsError(
                    f"the deployment {name} must be on the Prefect server, found none ({FILE}): deploy it first"
                ) from None
    return resolved
