"""``stillhouse recommend``: the champion answers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stillhouse.errors import ServingError

__all__ = ["show_recommendations"]


def show_recommendations(workspace: Path, *, user: str | None, items: str | None, k: int, as_json: bool) -> None:
    """Print the champion's ``k`` best items for a user's history or a list of items.

    Raises:
        ServingError: neither or both of ``user`` and ``items``, or there is no champion.
    """
    if (user is None) == (items is None):
        raise ServingError("one of --user and --items must be given, got " + ("neither" if user is None else "both"))
    from tasks.serving import history_of, load_champion
    from tasks.versions import require_workspace

    require_workspace(workspace)
    champion = load_champion(workspace)
    if user is not None:
        history, known = history_of(workspace, user)
    else:
        history, known = [item.strip() for item in (items or "").split(",") if item.strip()], True
    answer = champion.student.recommend(history, k)
    note = answer.note if known else f"user {user!r} is unknown; {answer.note or 'answered by popularity'}"
    if as_json:
        rows = [{"item": r.item_id, "score": r.score, "title": r.title, "category": r.category} for r in answer.items]
        click.echo(json.dumps({"champion": champion.label, "kind": answer.kind, "note": note, "items": rows}, indent=1))
        return
    click.echo(
        f"{champion.label}, {len(history)} event{'s' * (len(history) != 1)} of history" + (f": {note}" if note else "")
    )
    for place, row in enumerate(answer.items, start=1):
        words = "  ".join(part for part in (row.title, row.category and f"[{row.category}]") if part)
        click.echo(f"{place:>4}  {row.item_id:<12} {row.score:>8.3f}  {words}")
