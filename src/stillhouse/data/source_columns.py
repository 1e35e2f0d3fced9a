"""Which columns of a source play which part, and the error when one is not there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from stillhouse.errors import SourceError, one_line
from stillhouse.params.source import Columns, ItemColumns

__all__ = ["interaction_roles", "item_roles", "require"]


def interaction_roles(columns: Columns) -> dict[str, str]:
    """Return role → column name: ``user``, ``item``, ``order``, and ``rating`` and ``event`` where there are.

    >>> interaction_roles(Columns(rating="stars"))
    {'user': 'user_id', 'item': 'item_id', 'order': 'timestamp', 'rating': 'stars'}
    """
    order = columns.timestamp or columns.position or ""
    named = {
        "user": columns.user,
        "item": columns.item,
        "order": order,
        "rating": columns.rating,
        "event": columns.event,
    }
    return {role: name for role, name in named.items() if name is not None}


def item_roles(columns: ItemColumns) -> dict[str, str]:
    """Return role → column name of the item table."""
    named = {"item": columns.item, "title": columns.title, "text": columns.text, "category": columns.category}
    return {role: name for role, name in named.items() if name is not None}


def require(roles: dict[str, str], found: Sequence[str], where: str, section: str) -> None:
    """Check that each column that plays a role is there, once.

    Args:
        roles: role → column name.
        found: the column names that the source has.
        where: the file or query.
        section: the part of the source's settings that names columns.

    Raises:
        SourceError: a column is missing (lists those found and the close matches) or stands twice.
    """
    for role, name in roles.items():
        if name not in found:
            close = difflib.get_close_matches(name, found, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "."
            optional = "" if role in ("user", "item", "order") else f", or null where there is none of {role}"
            key = "timestamp or position" if role == "order" else role
            raise SourceError(
                one_line(
                    f"{where} must have the column {name!r}, found {', '.join(found) or 'no columns'}{hint} "
                    f"Name the column in params.yaml: source.{section}.{key}{optional}"
                )
            )
        if list(found).count(name) > 1:
            raise SourceError(
                one_line(f"{where} must have the column {name!r} once, found it twice: rename one of them")
            )
