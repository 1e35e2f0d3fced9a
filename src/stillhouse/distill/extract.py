"""From a teacher's scores to what the store keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["extract"]

#: Probabilities become integers before they are summed: integer sums are exact and the same on every device.
_SCALE = 2.0**39
_LOWEST = torch.finfo(torch.float16).min


def extract(
    scores: Tensor, seen: tuple[Tensor, Tensor], k: int, temperatures: Sequence[float], numbers: Tensor
) -> dict[str, Tensor]:
    """Return the top ``k`` candidates of each position, the weight of the rest, and draws from it.

    Args:
        scores: float32 [N, n_items + 1], finite but for column 0; overwritten.
        seen: (row, item), int64 [P] each, of what is no candidate.
        k: 1..n_items.
        temperatures: each > 0.
        numbers: float64 [N, S] in [0, 1), one a draw.

    Returns:
        Tensors of `stillhouse.distill.store_format.StoreHeader.shapes`, items as
        int64. Scores are relative to ``peak``, the position's best. A position with
        fewer than ``k`` candidates is padded with item 0 and -inf; one without a
        tail has ``tail_lse`` -inf and draws of item 0, score -inf, log-probability 0.

    Half of the draws follow the teacher at the lowest temperature and half are
    uniform over the tail: no item of the tail, likely or not under teacher or
    student, can then weigh more than twice its number of items.
    """
    scores[:, 0] = -torch.inf
    scores[seen] = -torch.inf
    items, best = _top(scores, k)
    peak = best[:, :1].masked_fill(best[:, :1] == -torch.inf, 0.0)
    tail = scores.scatter_(1, items, -torch.inf).sub_(peak)
    lse = torch.stack([torch.logsumexp(tail / temperature, dim=1) for temperature in temperatures], dim=1)
    coldest = min(range(len(temperatures)), key=temperatures.__getitem__)
    drawn, logq = _draw(tail, temperatures[coldest], lse[:, coldest], numbers)
    return {
        "items": items,
        "scores": _half(best - peak),
        "peak": peak.squeeze(1),
        "tail_lse": lse,
        "tail_items": drawn,
        "tail_scores": _half(tail.gather(1, drawn)),
        "tail_logq": logq,
    }


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best items [N, k] and their scores, best first, equal ones by their index; 0 and -inf pad."""
    last, items = scores.topk(k, dim=1)
    # Which of several equal scores at the edge topk takes is its own affair: settle it by the index.
    tied = (scores >= last[:, -1:]).sum(dim=1) > k
    if bool(tied.any()):
        items[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    items = items.sort(dim=1).values
    best, order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    return items.gather(1, order).masked_fill(best == -torch.inf, 0), best


def _draw(tail: Tensor, temperature: float, lse: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Items [N, S] drawn from the tail with replacement, and the float32 log-probability of each draw."""
    inside = tail != -torch.inf
    none = lse == -torch.inf
    probs = (tail / temperature - lse.masked_fill(none, 0.0).unsqueeze(1)).exp_()
    even = inside / inside.sum(dim=1, keepdim=True).clamp_min(1)
    weights = probs.add_(even).mul_(_SCALE).to(torch.int64)
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1:]
    at = (numbers * total).to(torch.int64)
    drawn = torch.searchsorted(cumulative, at, right=True).masked_fill(none.unsqueeze(1), 0)
    share = weights.gather(1, drawn).double() / total.double()
    return drawn, share.log().float().masked_fill(none.unsqueeze(1), 0.0)


def _half(scores: Tensor) -> Tensor:
    """As float16, where what is finite stays finite."""
    return torch.where(scores == -torch.inf, scores, scores.clamp_min(_LOWEST)).half()
