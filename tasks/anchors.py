"""The ledger's head, written down in DVC's remote as well: whoever cuts the ledger off has to reach both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Numbered
from stillhouse.lineage.ledger import head
from tasks import remote
from tasks.champion import ledger_entries

__all__ = ["anchor", "require_anchored"]


def anchor(root: Path) -> str | None:
    """Write the ledger's head into DVC's remote and return its hash; ``None``: the ledger is empty.

    Raises:
        NightError: the remote cannot be written.
        RegistryError: the ledger is not whole, or lacks what the remote names as its head: nothing is written over.
    """
    entries = ledger_entries(root)
    require_anchored(root, entries)
    last = head(entries)
    if last is None:
        return None
    text = json.dumps({"head": last.hash, "number": last.number}, sort_keys=True)
    remote.put(root, _name(entries), text.encode() + b"\n")
    return last.hash


def require_anchored(root: Path, entries: Sequence[Numbered] | None = None) -> int:
    """Refuse a ledger that lacks the entry which DVC's remote names as its head.

    Args:
        root: the workspace.
        entries: the ledger's; ``None``: they are read.

    Returns:
        How many entries the remote vouches for; 0: it names no head of this ledger.

    Raises:
        NightError: the remote cannot be read.
        RegistryError: the ledger is not whole, was cut off behind that entry, or what the remote has is no head.
    """
    counted = ledger_entries(root) if entries is None else entries
    data = remote.get(root, _name(counted)) if counted else None
    if data is None:
        return 0
    try:
        found = json.loads(data)
        stated, number = str(found["head"]), int(found["number"])
    except (ValueError, KeyError, TypeError):
        raise RegistryError(
            f"the ledger's head in DVC's remote (stillhouse/{_name(counted)}) must be readable, found something else: "
            "restore it, or remove it and have the next night write it anew"
        ) from None
    for again in (False, True):  # somebody may have promoted between the two looks
        for count, one in enumerate(ledger_entries(root) if again else counted, 1):
            if one.hash == stated:
                return count
    raise RegistryError(
        f"the ledger must hold entry {number} ({stated[:12]}), which DVC's remote names as its head, found the last to "
        f"be entry {counted[-1].number}: it was cut off; restore it from a backup"
    )


def _name(entries: Sequence[Numbered]) -> str:
    """Return the name of a ledger's head in the remote: a ledger is known by its first entry.

    Several workspaces may share a remote (a backfill's has a ledger of its own).
    """
    return f"ledgers/{entries[0].hash[:32]}.json"
