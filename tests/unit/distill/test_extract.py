from __future__ import annotations

from itertools import chain

import numpy as np
import torch

from stillhouse.distill.draws import uniforms
from stillhouse.distill.extract import extract

TEMPERATURES = (1.0, 3.0)


def _pairs(seen: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [row for row, items in enumerate(seen) for _ in items]
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(list(chain(*seen)), dtype=torch.int64)


def _extract(scores: torch.Tensor, seen: list[list[int]], k: int, samples: int = 5) -> dict[str, torch.Tensor]:
    n = scores.shape[0]
    numbers = torch.from_numpy(uniforms(0, np.arange(n), np.arange(n), samples))
    return extract(scores.clone(), _pairs(seen), k, TEMPERATURES, numbers)


def test_the_best_unseen_items_come_best_first_and_relative_to_the_best():
    scores = torch.tensor([[99.0, 1.0, 5.0, 3.0, 4.0, 2.0]])
    kept = _extract(scores, [[2]], 2)
    assert kept["items"].tolist() == [[4, 3]]
    assert kept["peak"].tolist() == [4.0]
    assert kept["scores"].tolist() == [[0.0, -1.0]]


def test_equal_scores_stand_in_the_order_of_their_index():
    scores = torch.zeros(2, 41)
    scores[1, 30] = 1.0
    kept = _extract(scores, [[3], [2, 5]], 5)
    assert kept["items"].tolist() == [[1, 2, 4, 5, 6], [30, 1, 3, 4, 6]]


def test_what_lies_beyond_the_top_is_summed_at_each_temperature():
    scores = torch.randn(3, 21, generator=torch.Generator().manual_seed(1)) * 3
    seen = [[1, 2], [20], []]
    kept = _extract(scores, seen, 5)
    for row in range(3):
        left = [i for i in range(1, 21) if i not in seen[row]]
        order = sorted(left, key=lambda item: -scores[row, item].item())
        assert kept["items"][row].tolist() == order[:5]
        tail = scores[row, order[5:]].double().numpy() - scores[row, order[0]].item()
        expected = [np.log(np.exp(tail / t).sum()) for t in TEMPERATURES]
        np.testing.assert_allclose(kept["tail_lse"][row].numpy(), expected, rtol=1e-5)
        assert set(kept["tail_items"][row].tolist()) <= set(order[5:])


def test_draws_carry_the_probability_that_they_were_drawn_with():
    scores = torch.randn(1, 12, generator=torch.Generator().manual_seed(2)).expand(60_000, -1)
    kept = _extract(scores, [[] for _ in range(60_000)], 3, samples=2)
    items, logq = kept["tail_items"].flatten().numpy(), kept["tail_logq"].flatten().double().numpy()
    total = 0.0
    for item in np.unique(items):
        probs = np.exp(logq[items == item])
        assert np.ptp(probs) == 0.0
        assert abs((items == item).mean() - probs[0]) < 5 * np.sqrt(probs[0] / len(items))
        total += probs[0]
    assert abs(total - 1.0) < 1e-6


def test_no_tail_item_weighs_more_than_twice_the_size_of_the_tail():
    scores = torch.randn(200, 41, generator=torch.Generator().manual_seed(3)) * 20
    kept = _extract(scores, [[] for _ in range(200)], 10)
    assert (-kept["tail_logq"]).exp().max() <= 2 * 30 * 1.00001


def test_fewer_candidates_than_k_are_padded_and_leave_no_tail():
    kept = _extract(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [[3]], 3)
    assert kept["items"].tolist() == [[2, 1, 0]]
    assert kept["scores"].tolist() == [[0.0, -1.0, -torch.inf]]
    assert kept["tail_lse"].tolist() == [[-torch.inf, -torch.inf]]
    assert kept["tail_items"].tolist() == [[0] * 5]
    assert kept["tail_scores"].isneginf().all()
    assert kept["tail_logq"].tolist() == [[0.0] * 5]


def test_a_position_without_any_candidate_is_all_padding():
    kept = _extract(torch.tensor([[0.0, 1.0, 2.0]]), [[1, 2]], 2)
    assert kept["items"].tolist() == [[0, 0]]
    assert kept["peak"].tolist() == [0.0]
    assert not any(tensor.isnan().any() for tensor in kept.values())


def test_a_finite_score_far_below_stays_finite_in_sixteen_bits():
    kept = _extract(torch.tensor([[0.0, 0.0, -1e6, -2e6]]), [[]], 2)
    assert kept["scores"].tolist() == [[0.0, -65504.0]]
    assert kept["tail_scores"].eq(-65504.0).all()
