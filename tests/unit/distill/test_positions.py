from __future__ import annotations

import numpy as np

from stillhouse.distill.positions import seen_pairs, spread, windows


def test_a_window_holds_the_last_input_positions_of_the_training_rows():
    found = windows(np.array([0, 1, 2, 4, 9], np.int32), 3)
    # 2 rows: input 0 → target 1; 4 rows: inputs 0..2; 9 rows: the last three inputs are 5, 6, 7.
    assert found.users.tolist() == [2, 3, 4]
    assert found.first.tolist() == [0, 0, 5]
    assert found.counts.tolist() == [1, 3, 3]


def test_no_user_with_two_training_rows_gives_no_window():
    assert len(windows(np.array([0, 1, 1]), 5)) == 0


def test_spread_lists_runs_one_after_another_and_skips_empty_ones():
    rows, values = spread(np.array([7, 3, 0]), np.array([2, 0, 3]))
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert values.tolist() == [7, 8, 0, 1, 2]


def test_a_position_has_seen_the_events_up_to_its_own_from_before_the_window_too():
    items = np.array([5, 6, 7, 8, 9], np.int32)
    offsets = np.array([0, 3, 5])
    rows, seen = seen_pairs(items, offsets, np.array([1, 0]), np.array([0, 2]))
    assert rows.tolist() == [0, 1, 1, 1]
    assert seen.tolist() == [8, 5, 6, 7]
