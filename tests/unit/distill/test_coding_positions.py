from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stillhouse.distill.coding_positions import OpenRows, RowCode, decode, encode, open_bytes, row_shapes

CODE = RowCode(n_items=300, k=6, score_bits=4, samples=5, tail_bits=5, temperatures=2)


def _kept(rows: int = 40, seed: int = 0, span: float = 7.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    items = np.sort(np.stack([rng.choice(300, 11, replace=False) + 1 for _ in range(rows)]), axis=1)
    drawn = items[:, 6:].astype(np.uint16)
    scores = -rng.random((rows, 6)) * span
    scores -= scores.max(axis=1, keepdims=True)
    tail = scores.min(axis=1, keepdims=True) - rng.random((rows, 5)) * 9
    kept = {
        "items": items[:, :6],
        "scores": scores.astype(np.float32),
        "peak": rng.normal(0, 9, rows).astype(np.float32),
        "tail_lse": rng.normal(0, 3, (rows, 2)).astype(np.float32),
        "tail_scores": tail.astype(np.float32),
    }
    return kept, drawn


def _back(kept: dict[str, np.ndarray], drawn: np.ndarray, code: RowCode = CODE) -> OpenRows:
    return decode(encode(kept, code), drawn, code)


def test_the_tensors_are_those_that_the_format_promises():
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in encode(_kept()[0], CODE).items()}
    assert found == dict(row_shapes(CODE, 40))


@pytest.mark.parametrize(("score_bits", "tail_bits"), [(1, 2), (4, 5), (8, 7)])
def test_a_score_comes_back_to_within_half_a_step(score_bits, tail_bits):
    code = RowCode(300, 6, score_bits, 5, tail_bits, 2)
    kept, drawn = _kept()
    rows = _back(kept, drawn, code)
    step = -kept["scores"].min(axis=1, keepdims=True) / code.levels
    order = np.argsort(rows.items, axis=1)
    assert np.array_equal(np.take_along_axis(rows.items, order, axis=1), kept["items"])
    found = np.take_along_axis(rows.scores(), order, axis=1)
    assert (np.abs(found - kept["scores"]) <= 0.51 * step + 0.005).all()
    assert found.max(axis=1).tolist() == [0.0] * 40
    tail_step = (kept["scores"].min(axis=1) - kept["tail_scores"].min(axis=1))[:, None] / (code.outside - 1)
    assert (np.abs(rows.tail_scores(code) - kept["tail_scores"]) <= 0.51 * tail_step + 0.02).all()
    np.testing.assert_allclose(rows.peak, kept["peak"], rtol=6e-4)
    np.testing.assert_allclose(rows.tail_lse, kept["tail_lse"], rtol=6e-4)


def test_rows_come_best_first_and_equal_steps_by_item():
    kept, drawn = _kept(1)
    kept["items"] = np.array([[2, 3, 5, 7, 11, 13]])
    kept["scores"] = np.array([[-15.0, -3.0, 0.0, -2.9, -3.1, 0.0]], np.float32)
    rows = _back(kept, drawn)
    assert rows.items.tolist() == [[5, 13, 3, 7, 11, 2]]
    assert rows.scores().tolist() == [[0.0, 0.0, -3.0, -3.0, -3.0, -15.0]]


def test_padding_comes_last_and_a_row_without_a_tail_draws_nothing():
    kept, drawn = _kept(2)
    kept["items"][0] = [0, 0, 0, 4, 5, 6]
    kept["scores"][0] = [-np.inf] * 3 + [-2.0, 0.0, -1.0]
    kept["items"][1], kept["scores"][1], kept["peak"][1] = 0, -np.inf, 0.0
    kept["tail_lse"][:], kept["tail_scores"][:] = -np.inf, -np.inf
    rows = _back(kept, drawn)
    assert rows.items.tolist() == [[5, 6, 4, 0, 0, 0], [0] * 6]
    assert np.isneginf(rows.scores()).sum(axis=1).tolist() == [3, 6]
    assert not rows.tail_items.any()
    assert np.isneginf(rows.tail_scores(CODE)).all()
    assert not rows.tail_logq(np.ones(5, np.float32)).any()


def test_a_draw_outside_the_tail_repeats_another_and_counts_nothing():
    kept, drawn = _kept(3)
    tail = kept["tail_scores"]
    tail[0, [0, 3]], tail[1, [1, 2, 3, 4]], tail[2] = -np.inf, -np.inf, -np.inf
    rows = _back(kept, drawn)
    assert rows.tail_items[0].tolist() == drawn[0, [4, 1, 2, 2, 4]].tolist()
    assert rows.tail_items[1].tolist() == [drawn[1, 0]] * 5
    assert rows.tail_items[2].tolist() == [rows.items[2, -1]] * 5
    scores, logq = rows.tail_scores(CODE), rows.tail_logq(np.arange(5, dtype=np.float32))
    assert scores[0].tolist() == scores[0, [4, 1, 2, 2, 4]].tolist()
    assert (scores[2] == rows.scores()[2, -1]).all()
    assert logq.tolist() == [[np.inf, 1, 2, np.inf, 4], [0, *[np.inf] * 4], [np.inf] * 5]


def test_what_is_finite_stays_finite_and_equal_scores_stay_equal():
    kept, drawn = _kept(3)
    kept["scores"][0] = [0.0, -1e7, -2e7, -3.0, -4.0, -5e7]
    kept["tail_scores"][0] = -6e7
    kept["peak"][:2], kept["tail_lse"][:2] = [3e6, -3e6], -1e6
    kept["scores"][1], kept["tail_scores"][1] = 0.0, 0.0
    kept["scores"][2], kept["tail_scores"][2] = -1e-7, -1e-7
    rows = _back(kept, drawn)
    for array in (rows.scores(), rows.tail_scores(CODE), rows.peak, rows.tail_lse):
        assert np.isfinite(array).all()
    assert not rows.scores()[1].any()
    assert not rows.tail_scores(CODE)[1].any()


def test_without_draws_there_is_nothing_to_draw():
    code = RowCode(300, 6, 4, 0, 5, 2)
    kept, _ = _kept()
    kept["tail_scores"] = kept["tail_scores"][:, :0]
    rows = _back(kept, np.empty((40, 0), np.uint16), code)
    assert rows.tail_items.shape == rows.tail_scores(code).shape == (40, 0)


def test_bytes_that_are_no_rows_are_refused():
    kept, drawn = _kept(4)
    tensors = encode(kept, CODE)
    tensors["items"][2, -1] ^= 1
    with pytest.raises(ValueError, match="4 sets of 6 numbers must have that many bits set"):
        decode(tensors, drawn, CODE)
    beyond = encode(kept | {"items": np.tile([[1, 2, 3, 4, 5, 303]], (4, 1))}, CODE)
    with pytest.raises(ValueError, match=r"items must be within 0\.\.300, found 303"):
        decode(beyond, drawn, CODE)


def test_joined_rows_are_the_parts_and_take_what_was_said():
    kept, drawn = _kept()
    whole = _back(kept, drawn)
    parts: list[Any] = [whole.take(np.arange(start, start + 10)) for start in range(0, 40, 10)]
    joined = OpenRows.joined(parts, 40, CODE)
    for name, array in vars(whole).items():
        assert np.array_equal(getattr(joined, name), array), name
        assert getattr(joined, name).dtype == array.dtype, name
    assert sum(array.nbytes for array in vars(joined).values()) == 40 * open_bytes(CODE)
