"""From a teacher's scores to what the store keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["extract"]

#: A tail whose terms sum to less, relative to the worst item of the top, is summed again relative to its own best.
_THIN = 0.03
#: A probability whose square is still far from what a float32 would make nothing of.
_SQUARABLE = 1e-9
#: Groups of columns, in top k's, whose best ones bound the k-th best score from below.
_GROUPS = 2
#: A row with so many times k scores at or above the bound is sorted alone (equal scores by the hundred).
_CROWD = 4

Int = NDArray[np.int64]


def extract(
    scores: Tensor, seen: tuple[Tensor, Tensor], k: int, temperatures: Sequence[float], drawn: Tensor
) -> dict[str, Tensor]:
    """Return the top ``k`` candidates of each position, the weight of the rest, and the scores of what was drawn.

    Args:
        scores: float32 [N, n_items + 1], contiguous, finite but for column 0; overwritten.
        seen: (row, item), int64 [P] each, of what is no candidate.
        k: 1..n_items.
        temperatures: each > 0.
        drawn: int64 [N, S], an item of each stratum (`stillhouse.distill.draws`).

    Returns:
        ``items`` int64 [N, k] in ascending order and ``scores`` float32 [N, k] of the top,
        ``peak`` float32 [N], the best score, ``tail_lse`` float32 [N, temperatures] over
        the candidates beyond the top, and ``tail_scores`` float32 [N, S], -inf where a draw
        fell outside them. All but ``peak`` are relative to it. Of equal scores at the edge
        the lower indices are in the top. A position with fewer than ``k`` candidates is
        padded with item 0 and -inf; one without a tail has ``tail_lse`` -inf. A score
        that is not finite makes ``peak`` or ``tail_lse`` NaN or +inf.
    """
    scores[:, 0] = -torch.inf
    scores.view(-1).index_fill_(0, seen[0] * scores.shape[1] + seen[1], -torch.inf)
    items, best = _top_by_sorting(scores, k) if scores.is_cuda else _top_by_bound(scores, k)
    peak = best.amax(dim=1)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    scores.scatter_(1, items, -torch.inf)
    return {
        "items": items,
        "scores": best - peak[:, None],
        "peak": peak,
        "tail_scores": scores.gather(1, drawn) - peak[:, None],
        "tail_lse": _tail_lse(scores, best.amin(dim=1), peak, temperatures),
    }


def _top_by_sorting(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best items [N, k] by index, and their scores; 0 and -inf pad."""
    last, items = scores.topk(k, dim=1)
    # Which of several equal scores at the edge topk takes is its own affair: settle it by the index.
    tied = (scores >= last[:, -1:]).sum(dim=1) > k
    if bool(tied.any()):
        items[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    best = scores.gather(1, items)
    items, order = items.masked_fill(best == -torch.inf, 0).sort(dim=1)
    return items, best.gather(1, order)


def _top_by_bound(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `_top_by_sorting`, on a CPU: only the few scores that reach a bound are ever sorted.

    The columns are cut into groups. The k-th largest of the groups' best scores is a
    bound that at least k scores reach, and hardly more where there are many groups.
    """
    table = scores.numpy()
    bound = _bound(table, k)
    cells = np.flatnonzero(table >= bound[:, None])
    edges = np.searchsorted(cells, np.arange(len(table) + 1) * table.shape[1])
    counts = np.diff(edges)
    crowded = (bound == -np.inf) | (counts > _CROWD * k) | (counts < k)
    if crowded.any():
        cells, counts = cells[np.repeat(~crowded, counts)], np.where(crowded, 0, counts)
    items, best = _best_of(table, cells, counts, k)
    for part in np.array_split(np.flatnonzero(crowded), -(-int(crowded.sum()) // 64) or 1):
        if len(part):
            found = _top_by_sorting(scores[torch.from_numpy(part)], k)
            items[part], best[part] = found[0].numpy(), found[1].numpy()
    return torch.from_numpy(items), torch.from_numpy(best)


def _bound(table: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """A score for each row, float32 [N], that at least ``k`` of its scores reach."""
    columns = table.shape[1]
    size = max(1, columns // (_GROUPS * k))
    groups = columns // size
    best = table[:, : groups * size].reshape(len(table), size, groups).max(axis=1)
    rest = columns - groups * size
    np.maximum(best[:, :rest], table[:, groups * size :], out=best[:, :rest])
    best.partition(groups - k, axis=1)
    bound: NDArray[np.float32] = best[:, groups - k]
    return bound


def _best_of(table: NDArray[np.float32], cells: Int, counts: Int, k: int) -> tuple[Int, NDArray[np.float32]]:
    """The ``k`` best of the ``cells`` by index, and their scores. They ascend, ``counts`` in a row: k, more, or none.

    A cell becomes one number: its score's bits, turned so that they fall as scores rise, before its column.
    """
    rows = np.repeat(np.arange(len(table)), counts)
    # Equal scores must have equal bits: -0 + 0 is 0.
    bits = (np.take(table, cells) + np.float32(0.0)).view(np.uint32)
    falling = bits ^ np.where(bits >> np.uint32(31), np.uint32(0), np.uint32(2**31 - 1))
    columns = (cells - rows * table.shape[1]).astype(np.uint64)
    width = max(int(counts.max(initial=0)), k)
    keys = np.full((len(table), width), np.uint64(2**64 - 1))
    places = np.arange(len(cells)) + np.repeat(np.arange(len(table)) * width - (np.cumsum(counts) - counts), counts)
    keys.reshape(-1)[places] = falling.astype(np.uint64) << np.uint64(32) | columns
    keys.partition(k - 1, axis=1)
    kept = keys[:, :k]
    by_item = kept << np.uint64(32) | kept >> np.uint64(32)
    by_item.sort(axis=1)
    falling = by_item.astype(np.uint32)
    bits = falling ^ np.where(falling >> np.uint32(31), np.uint32(0), np.uint32(2**31 - 1))
    return (by_item >> np.uint64(32)).astype(np.int64), bits.view(np.float32)


def _tail_lse(tail: Tensor, worst: Tensor, peak: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Log of the sum of exp((score - peak) / temperature) over the tail, float32 [N, temperatures].

    ``tail`` [N, n_items + 1] is -inf outside the tail, nothing in it is above ``worst`` [N], and it is overwritten.
    The softmax is one pass over a row that stays in the nearest cache. Column 0 takes the place of
    the worst of the top: what the others weigh is then read from its probability, (1 - p) / p. The squares of
    the probabilities at a temperature weigh as the probabilities at half of it.
    """
    base = torch.where(worst == -torch.inf, peak, worst)
    tail[:, 0] = base
    columns: dict[float, Tensor] = {}
    scaled, hotter, probs, ours = 1.0, 0.0, tail, base
    for temperature in sorted(set(temperatures), reverse=True):
        if hotter == 2.0 * temperature and bool((ours > _SQUARABLE).all()):
            probs, ours = probs.mul_(probs), ours * ours
            weight = probs.sum(dim=1) / ours
        else:
            probs = torch.softmax(tail.mul_(scaled / temperature), dim=1)
            ours, scaled = probs[:, 0].clone(), temperature
            probs[:, 0] = 0.0
            weight = (1.0 - ours) / ours
        columns[temperature] = _logged(weight, tail, temperature, (scaled, base)) + (base - peak) / temperature
        hotter = temperature
    return torch.stack([columns[temperature] for temperature in temperatures], dim=1)


def _logged(weight: Tensor, tail: Tensor, temperature: float, was: tuple[float, Tensor]) -> Tensor:
    """``weight``'s logarithm; a thin tail's, which hides behind column 0, is summed again by itself.

    ``tail`` is divided by ``was[0]``; the result is relative to ``was[1]``.
    """
    logs = weight.log()
    thin = weight < _THIN
    if bool(thin.any()):
        scaled, base = was
        again = tail[thin, 1:] * (scaled / temperature) - base[thin, None] / temperature
        logs[thin] = torch.logsumexp(again, dim=1)
    return logs
