from __future__ import annotations

import numpy as np

from stillhouse.data.kcore import kcore


def _core(
    rows: list[tuple[int, int]], *, users: int, items: int, k: int = 2, protected: tuple[int, ...] = ()
) -> tuple[set[int], set[int]]:
    mask = np.zeros(items, bool)
    mask[list(protected)] = True
    user_column, item_column = (np.array([row[side] for row in rows], np.int32) for side in (0, 1))
    kept = kcore(user_column, item_column, min_user_events=k, min_item_events=k, n_users=users, protected=mask)
    return set(np.flatnonzero(kept[0]).tolist()), set(np.flatnonzero(kept[1]).tolist())


SQUARE = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_square_holds_itself_up() -> None:
    assert _core(SQUARE, users=2, items=2) == ({0, 1}, {0, 1})


def test_a_chain_hanging_on_the_core_is_peeled_link_by_link() -> None:
    # Item 2 goes for want of rows, so that user 2 has one left; with user 2 item 3 loses its second row, and so on.
    chain = [*SQUARE, (2, 1), (2, 3), (3, 3), (3, 2)]
    assert _core(chain, users=4, items=4) == ({0, 1}, {0, 1})


def test_a_protected_item_stays_and_holds_its_users() -> None:
    rows = [*SQUARE, (2, 1), (2, 2)]
    assert _core(rows, users=3, items=3) == ({0, 1}, {0, 1})
    assert _core(rows, users=3, items=3, protected=(2,)) == ({0, 1, 2}, {0, 1, 2})


def test_a_protected_item_stays_without_any_row() -> None:
    assert _core(SQUARE, users=2, items=4, protected=(3,)) == ({0, 1}, {0, 1, 3})


def test_a_core_may_be_empty() -> None:
    assert _core([(0, 0), (1, 1)], users=2, items=2) == (set(), set())


def test_no_rows_leave_nobody() -> None:
    assert _core([], users=2, items=2) == (set(), set())


def test_the_two_sides_have_limits_of_their_own() -> None:
    rows = np.array([(0, 0), (0, 1), (0, 2), (1, 0)], np.int32)
    users, items = kcore(
        rows[:, 0], rows[:, 1], min_user_events=3, min_item_events=1, n_users=2, protected=np.zeros(3, bool)
    )
    assert users.tolist() == [True, False]
    assert items.tolist() == [True, True, True]
