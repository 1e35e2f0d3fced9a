from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from stillhouse.distill import extract as module
from stillhouse.distill.extract import extract

TEMPERATURES = (1.0, 3.0, 2.0, 4.0, 0.5)


def _pairs(seen: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [row for row, items in enumerate(seen) for _ in items]
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(list(chain(*seen)), dtype=torch.int64)


def _extract(
    scores: torch.Tensor, seen: list[list[int]], k: int, drawn: list[int] | None = None
) -> dict[str, torch.Tensor]:
    some = torch.tensor(drawn or [1], dtype=torch.int64).expand(len(scores), -1)
    return extract(scores.clone(), _pairs(seen), k, TEMPERATURES, some)


def _normal(rows: int, columns: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale


def test_the_best_unseen_items_come_by_index_and_relative_to_the_best():
    scores = torch.tensor([[99.0, 1.0, 5.0, 3.0, 4.0, 2.0]])
    kept = _extract(scores, [[2]], 2)
    assert kept["items"].tolist() == [[3, 4]]
    assert kept["peak"].tolist() == [4.0]
    assert kept["scores"].tolist() == [[-1.0, 0.0]]


def test_of_equal_scores_at_the_edge_the_first_by_index_are_kept():
    scores = torch.zeros(3, 41)
    scores[1, 30] = 1.0
    scores[2, ::2] = -0.0
    kept = _extract(scores, [[3], [2, 5], []], 5)
    assert kept["items"].tolist() == [[1, 2, 4, 5, 6], [1, 3, 4, 6, 30], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("k", [1, 5, 20, 60])
@pytest.mark.parametrize("grid", [None, 0.5])
def test_the_bound_and_the_sort_find_the_same_top(k, grid):
    scores = _normal(40, 301, seed=k)
    scores[:, 0] = -torch.inf
    if grid:
        scores = (scores / grid).round() * grid
    scores[3, 5:] = -torch.inf
    scores[4] = -torch.inf
    scores[5, 1:] = 2.0
    one, other = module._top_by_bound(scores.clone(), k), module._top_by_sorting(scores.clone(), k)
    for found, expected in zip(one, other, strict=True):
        assert torch.equal(found, expected)
    rows = torch.arange(40)[:, None]
    assert torch.equal(one[1], scores[rows, one[0]])
    assert torch.equal(one[1].sort(descending=True).values, scores.sort(descending=True).values[:, :k])


def test_what_lies_beyond_the_top_is_summed_at_each_temperature():
    scores = _normal(3, 21, seed=1)
    seen = [[1, 2], [20], []]
    kept = _extract(scores, seen, 5, drawn=list(range(1, 21)))
    for row in range(3):
        left = [i for i in range(1, 21) if i not in seen[row]]
        order = sorted(left, key=lambda item: -scores[row, item].item())
        assert kept["items"][row].tolist() == sorted(order[:5])
        raw = scores[row].double().numpy() - scores[row, order[0]].item()
        expected = [np.log(np.exp(raw[order[5:]] / t).sum()) for t in TEMPERATURES]
        np.testing.assert_allclose(kept["tail_lse"][row].numpy(), expected, rtol=1e-5, atol=1e-6)
        inside = kept["tail_scores"][row]
        assert [i for i in range(1, 21) if inside[i - 1] > -torch.inf] == sorted(order[5:])
        np.testing.assert_allclose(inside[np.array(order[5:]) - 1].numpy(), raw[order[5:]], rtol=1e-5)


@pytest.mark.parametrize("gap", [0.0, 3.0, 30.0, 300.0])
def test_a_tail_far_below_the_top_keeps_its_weight(gap):
    scores = _normal(5, 401, seed=2, scale=1.0)
    scores[:, 1:11] += 20.0
    scores[:, 11:] -= gap
    kept = _extract(scores, [[] for _ in range(5)], 10)
    tail = scores[:, 11:].double() - scores[:, 1:].max(dim=1, keepdim=True).values
    expected = torch.stack([(tail / t).logsumexp(dim=1) for t in TEMPERATURES], dim=1)
    np.testing.assert_allclose(kept["tail_lse"].numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_fewer_candidates_than_k_are_padded_and_leave_no_tail():
    kept = _extract(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [[3]], 3, drawn=[1, 3, 2])
    assert kept["items"].tolist() == [[0, 1, 2]]
    assert kept["scores"].tolist() == [[-torch.inf, -1.0, 0.0]]
    assert kept["tail_lse"].isneginf().all()
    assert kept["tail_scores"].isneginf().all()


def test_a_position_without_any_candidate_is_all_padding():
    kept = _extract(torch.tensor([[0.0, 1.0, 2.0]]), [[1, 2]], 2)
    assert kept["items"].tolist() == [[0, 0]]
    assert kept["peak"].tolist() == [0.0]
    assert not any(tensor.isnan().any() for tensor in kept.values())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("item", [1, 9])
def test_a_score_that_is_not_finite_cannot_hide(bad, item):
    scores = torch.arange(0.0, -30.0, -1.0)[None].clone()
    scores[0, item] = bad
    kept = _extract(scores, [[]], 3)
    assert not (kept["peak"].isfinite().all() and kept["tail_lse"].isfinite().all())


def test_temperatures_that_halve_many_times_stay_exact():
    temperatures = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    scores = _normal(3, 1001, seed=4)
    kept = extract(scores.clone(), _pairs([[2], [], [3]]), 20, temperatures, torch.ones(3, 1, dtype=torch.int64))
    left = (scores.double() - kept["peak"].double()[:, None]).scatter(1, kept["items"], -torch.inf)
    left[:, 0] = left[0, 2] = left[2, 3] = -torch.inf
    expected = torch.stack([torch.logsumexp(left / temperature, dim=1) for temperature in temperatures], dim=1)
    torch.testing.assert_close(kept["tail_lse"].double(), expected, atol=1e-5, rtol=1e-5)
