"""Aliases of the registered student: names that follow the ledger and mean nothing without it."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import RegistryError
from stillhouse.tracking.registry import STUDENT
from stillhouse.tracking.store import connect

__all__ = ["ALIASES", "delete_alias", "get_aliases", "repair", "set_alias"]

#: The aliases that the ledger decides.
ALIASES = ("champion", "challenger", "previous")


def get_aliases(workspace: Path) -> dict[str, int]:
    """Return alias → version of the registered student; empty where it is not there yet."""
    client = connect(workspace).client
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(STUDENT)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {str(alias): int(version) for alias, version in model.aliases.items()}


def set_alias(workspace: Path, alias: str, version: int) -> None:
    """Point ``alias`` at ``version``.

    Raises:
        RegistryError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        connect(workspace).client.set_registered_model_alias(STUDENT, alias, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"version {version}, which the ledger has as {alias}, must be in the registry, found it gone "
            f"(registered model {STUDENT}): restore it from a backup"
        ) from None


def delete_alias(workspace: Path, alias: str) -> None:
    """Take ``alias`` away; nothing happens where it is not set."""
    if alias in get_aliases(workspace):
        connect(workspace).client.delete_registered_model_alias(STUDENT, alias)


def repair(
    workspace: Path, *, champion: int | None, challenger: int | None, previous: int | None
) -> dict[str, tuple[int | None, int | None]]:
    """Make the registry's aliases equal the ledger's state; others are left alone.

    Args:
        workspace: the folder of ``params.yaml``.
        champion: the version in production; ``None``: there is none.
        challenger: the version that waits or was refused.
        previous: the version that a rollback would return to.

    Returns:
        Alias → (version before, version now) for each that was wrong; empty when all were right.
    """
    wanted = dict(zip(ALIASES, (champion, challenger, previous), strict=True))
    found = get_aliases(workspace)
    changed = {alias: (found.get(alias), to) for alias, to in wanted.items() if found.get(alias) != to}
    for alias, (_, to) in changed.items():
        if to is None:
            delete_alias(workspace, alias)
        else:
            set_alias(workspace, alias, to)
    return changed
