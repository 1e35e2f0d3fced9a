from datetime import datetime

import pytest

from stillhouse.lineage.entry import Entry, Numbered
from stillhouse.lineage.projection import State, state


def history(*acts):
    """Entries of (kind, version), one a day of March 2026."""
    plain = {"night": None, "name": "gru", "package": "0" * 64, "reason": "r", "actor": "gate"}
    made = [
        Entry(key=str(i), kind=kind, version=version, time=f"2026-03-{i:02}T12:00:00+00:00", **plain)
        for i, (kind, version) in enumerate(acts, 1)
    ]
    return [Numbered(i, "h", entry) for i, entry in enumerate(made, 1)]


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([], State()),
        ([("registered", 1)], State()),
        ([("promoted", 1)], State(champion=1)),
        ([("promoted", 1), ("promoted", 2)], State(champion=2, previous=1)),
        ([("promoted", 1), ("refused", 2)], State(champion=1, challenger=2)),
        ([("promoted", 1), ("refused", 2), ("refused", 3)], State(champion=1, challenger=3)),
        ([("promoted", 1), ("refused", 2), ("promoted", 2)], State(champion=2, previous=1)),
        ([("promoted", 1), ("refused", 2), ("promoted", 3)], State(champion=3, challenger=2, previous=1)),
        ([("promoted", 1), ("awaiting", 2)], State(champion=1, challenger=2, awaiting=2)),
        ([("promoted", 1), ("awaiting", 2), ("promoted", 2)], State(champion=2, previous=1)),
        ([("promoted", 1), ("awaiting", 2), ("rejected", 2)], State(champion=1, challenger=2)),
        ([("promoted", 1), ("awaiting", 2), ("refused", 3)], State(champion=1, challenger=3, awaiting=2)),
        ([("promoted", 1), ("awaiting", 2), ("rejected", 3)], State(champion=1, challenger=3, awaiting=2)),
        ([("promoted", 1), ("awaiting", 2), ("awaiting", 3)], State(champion=1, challenger=3, awaiting=3)),
        ([("promoted", 1), ("promoted", 2), ("rolled_back", 1)], State(champion=1)),
        ([("promoted", 1), ("promoted", 2), ("promoted", 3), ("rolled_back", 2)], State(champion=2, previous=1)),
        ([("promoted", 1), ("promoted", 2), ("promoted", 3), ("rolled_back", 1)], State(champion=1)),
        ([("promoted", 1), ("promoted", 2), ("rolled_back", 1), ("promoted", 3)], State(champion=3, previous=1)),
        (
            [*(("promoted", version) for version in (1, 2, 3, 2, 4)), ("rolled_back", 2)],
            State(champion=2, previous=3),
        ),
        ([("promoted", 2), ("rolled_back", 1)], State(champion=1, previous=2)),
    ],
)
def test_state_is_what_the_entries_add_up_to(acts, expected):
    assert state(history(*acts)) == expected


def test_the_state_at_a_time_leaves_out_what_came_later():
    entries = history(("promoted", 1), ("promoted", 2), ("rolled_back", 1))
    at = [state(entries, at=datetime.fromisoformat(f"2026-03-0{day}T14:00:00+02:00")).champion for day in (1, 2, 3)]
    assert at == [1, 2, 1]
    assert state(entries, at=datetime.fromisoformat("2026-03-01T11:59:59+00:00")).champion is None
