"""The loss of a batch against the whole catalogue, without the table of all positions against all items.

A batch of 128 sequences of 200 events over 3,000 items has 77 million scores; over a
million items it would have 26 billion. `catalogue_loss` walks the positions in parts
whose scores fit the processor's cache: scores, loss and gradient of one part are done
before the next begins, and only the gradients of states and item rows are kept. On a
CPU this is faster as well as smaller, because no pass over the scores goes to memory.
Source: the idea of computing a linear layer and its cross-entropy in parts is that of
Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stillhouse.distill.catalogue import Look
from stillhouse.distill.protocol import Answer, Lesson, LossParts, Wanted
from stillhouse.models.queries import Products, best_product

__all__ = ["catalogue_loss", "sampled_loss"]

#: Scores held at once (positions × items) on a CPU: a few megabytes, which a core's cache nearly holds.
_CELLS_CPU = 1 << 21
#: What the logarithm of an empty sum is taken for: finite, and less than any score that a model gives.
_NOTHING = -80.0
#: Positions of a part at least, however large the catalogue is.
_FEWEST = 64
#: On a GPU parts are as large as its memory bears easily, so that each is worth a launch.
_CELLS_GPU = 1 << 27


def catalogue_loss(
    hidden: Tensor, table: Tensor, lesson: Lesson, learnt: nn.Module | None = None, dtype: torch.dtype | None = None
) -> LossParts:
    """Return the loss of ``lesson`` on the scores ``hidden @ table.T``, ready for one backward call.

    Args:
        hidden: float [N, width], states at N positions; a multiple of the width where a state is several
            queries, of which each score is the best product.
        table: float [n_items + 1, width], the rows that score; row 0 is padding.
        lesson: of the same N positions.
        learnt: what the objective itself learns; its gradients come with the others.
        dtype: of the two products' factors; ``None``: that of ``hidden``. Sums are
            float32 whatever it is (or float64, where ``hidden`` is).

    Returns:
        the loss and its parts: sums of what the parts of the batch added.
    """
    beside = lesson.beside(hidden)
    weights = [] if learnt is None else [weight for weight in learnt.parameters() if weight.requires_grad]
    names: list[str] = []
    total, *parts = _InParts.apply(hidden, table, lesson, dtype or hidden.dtype, names, *weights)  # type: ignore[no-untyped-call]
    return _with(beside, LossParts(total=total, parts=dict(zip(names, parts, strict=True))))


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        lesson: Lesson,
        dtype: torch.dtype,
        names: list[str],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        sums: dict[str, Tensor] = {}
        kept = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=kept, device=hidden.device)
        factors = table.detach().to(dtype)
        by_state = torch.zeros(hidden.shape, dtype=kept, device=hidden.device)
        by_row = torch.zeros(table.shape, dtype=kept, device=table.device)
        by_weight = [torch.zeros_like(weight) for weight in weights]
        queries = hidden.shape[1] // table.shape[1]
        parts = _parts(len(hidden), len(table) * queries, hidden.device.type)
        product = Products(factors, queries, parts[0][1], kept)
        with torch.autocast(hidden.device.type, enabled=False):
            for start, stop in parts:
                states = hidden[start:stop].detach().to(dtype)
                scores = product.best(states)
                found, slope, own, extra = _one(scores, hidden[start:stop].detach(), lesson, (start, stop), weights)
                total += found.total.detach()
                for name, value in found.parts.items():
                    sums[name] = sums[name] + value if name in sums else value.clone()
                queried = torch.split(by_state[start:stop], table.shape[1], dim=1)
                for of_query, (at_query, at_rows) in zip(queried, product.back(states, slope), strict=True):
                    of_query.copy_(at_query)
                    by_row += at_rows
                if own is not None:
                    by_state[start:stop] += own
                for kept_sum, gradient in zip(by_weight, extra, strict=True):
                    if gradient is not None:
                        kept_sum.add_(gradient)
        names += sums
        ctx.save_for_backward(by_state.to(hidden.dtype), by_row.to(table.dtype), *by_weight)
        ctx.mark_non_differentiable(*sums.values())
        return (total, *sums.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        by_state, by_row, *by_weight = (kept * gradient.to(kept.dtype) for kept in ctx.saved_tensors)
        return (by_state, by_row, None, None, None, *by_weight)


def _one(
    scores: Tensor, hidden: Tensor, lesson: Lesson, bounds: tuple[int, int], weights: Sequence[Tensor]
) -> tuple[LossParts, Tensor, Tensor | None, Sequence[Tensor | None]]:
    """Return what one part adds, its gradient against the scores, the states and the objective's own weights."""
    seen = Look(scores, lesson.wanted.part(*bounds))
    with torch.enable_grad():
        leaves = [leaf.requires_grad_() for leaf in seen.leaves()]
        state = hidden.requires_grad_()
        found = lesson.loss(seen.answer(leaves, state), *bounds)
        gradients = torch.autograd.grad(found.total, [*leaves, state, *weights], allow_unused=True)
    at_leaves = gradients[: len(leaves)]
    own, *extra = gradients[len(leaves) :]
    return found, seen.gradient(at_leaves), own, extra


def _parts(positions: int, columns: int, device: str) -> list[tuple[int, int]]:
    cells = _CELLS_GPU if device == "cuda" else _CELLS_CPU
    # Each part walks all rows of the table once, so it must be worth the walk.
    size = max(_FEWEST, cells // columns)
    return [(start, min(start + size, positions)) for start in range(0, positions, size)] or [(0, 0)]


def sampled_loss(
    hidden: Tensor, table: Tensor, lesson: Lesson, negatives: int, dtype: torch.dtype | None = None
) -> LossParts:
    """Return an estimate of `catalogue_loss` from ``negatives`` items, drawn for the whole batch.

    What an objective asks of single items is exact; its sums over items are those over the draws,
    each counting for n_items / drawn items, and over the first wanted item (the target) and the
    head, which count for themselves. Time and memory no longer grow with positions × items.

    Args:
        hidden: float [N, width], states at N positions, as for `catalogue_loss`.
        table: float [n_items + 1, width], the rows that score; row 0 is padding.
        lesson: of the same N positions; the first column of its wanted items holds the targets.
        negatives: at least 1; torch's generator draws them.
        dtype: of the factors of the product, as for `catalogue_loss`.

    Returns:
        the loss and its parts.

    Source: Y. Bengio, J.-S. Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model", IEEE Transactions on Neural Networks 2008; drawn uniformly here.
    """
    beside = lesson.beside(hidden)
    drawn = torch.unique(torch.randint(1, len(table), (negatives,), device=table.device))
    # One gather for all parts: its gradient is as large as the table.
    named = torch.unique(lesson.wanted.items)
    rows, own = (table.index_select(0, some).to(hidden.dtype) for some in (drawn, named))
    total: Tensor = hidden.new_zeros(())
    parts: dict[str, Tensor] = {}
    with torch.autocast(hidden.device.type, enabled=False):
        for start, stop in _parts(len(hidden), negatives, hidden.device.type):
            wanted = lesson.wanted.part(start, stop)
            each = own[torch.searchsorted(named, wanted.items)]
            answer = _estimate(hidden[start:stop], len(table) - 1, each, drawn, rows, wanted, dtype)
            found = lesson.loss(answer, start, stop)
            total = total + found.total
            parts = {name: value + parts.get(name, 0.0) for name, value in found.parts.items()}
    return _with(beside, LossParts(total=total, parts=parts))


def _with(beside: LossParts | None, found: LossParts) -> LossParts:
    """Return both together."""
    if beside is None:
        return found
    return LossParts(total=found.total + beside.total, parts={**found.parts, **beside.parts})


def _estimate(
    hidden: Tensor, n_items: int, each: Tensor, drawn: Tensor, rows: Tensor, wanted: Wanted, dtype: torch.dtype | None
) -> Answer:
    """Answer ``wanted`` of n positions from the rows of its items [n, M, width] and of those ``drawn``, ascending."""
    queries = hidden.view(len(hidden), hidden.shape[1] // rows.shape[1], rows.shape[1])
    scores = torch.einsum("nqd,nmd->nqm", queries, each).amax(dim=1)
    factors = (hidden, rows) if dtype is None else (hidden.to(dtype), rows.to(dtype))
    best = best_product(*factors).to(hidden.dtype)
    sample = best + math.log(n_items / len(drawn))
    target, at_target = wanted.items[:, :1], scores[:, :1]
    sample = sample.masked_fill(drawn == target, -torch.inf)
    every = torch.cat([at_target, sample], dim=1)
    zero = hidden.new_zeros(len(hidden))
    unseen, tail = {}, {}
    top_items, top_scores = None, None
    columns = torch.cat([target.new_zeros(1), drawn])
    headed, head = _headed(wanted, columns, scores)
    if wanted.temperatures:
        taken = torch.zeros(every.shape, dtype=torch.bool, device=every.device)
        if wanted.seen is not None:
            _mark(taken, columns, *wanted.seen)
        if wanted.top:
            # The target too, if it was drawn: its column of `sample` counts elsewhere.
            raw = best.masked_fill(taken[:, 1:], -torch.inf)
            top_scores, at = raw.topk(min(wanted.top, len(drawn)), dim=1)
            top_items = drawn[at].masked_fill_(torch.isneginf(top_scores), 0)
        for temperature in wanted.temperatures:
            # A weight stands beside a score, not under the temperature.
            weight = torch.where(columns == 0, 0.0, math.log(n_items / len(drawn)))
            cooled = ((every - weight) / temperature + weight).masked_fill(taken, -torch.inf)
            beyond = cooled if headed is None else cooled.masked_fill(headed, -torch.inf)
            tail[temperature] = _log_sum(beyond, -torch.inf)
            whole = cooled if head is None else torch.cat([beyond, head / temperature], dim=1)
            unseen[temperature] = _log_sum(whole, _NOTHING)
    if headed is not None and head is not None:
        every = torch.cat([every.masked_fill(headed, -torch.inf), head], dim=1)
    return Answer(
        scores=scores.masked_fill(wanted.items == 0, -torch.inf),
        hidden=hidden,
        log_total=every.logsumexp(dim=1) if wanted.total else zero,
        log_unseen=unseen,
        log_tail=tail,
        mean=_mean(best, scores[:, 0], columns, wanted) if wanted.mean else zero,
        top_items=top_items,
        top_scores=top_scores,
    )


def _mean(drawn: Tensor, target: Tensor, columns: Tensor, wanted: Wanted) -> Tensor:
    """Return the mean of those of ``drawn``, [n, draws], that are unseen; that of the target alone where none is, [n].

    A mean of draws, not a sum over the number of unseen items: scores that are all higher by one number give a mean
    that is higher by it, as the whole catalogue's is.
    """
    if wanted.seen is None:
        return drawn.mean(dim=1)
    taken = torch.zeros((len(drawn), len(columns)), dtype=torch.bool, device=drawn.device)
    _mark(taken, columns, *wanted.seen)
    left = ~taken[:, 1:]
    counts = left.sum(dim=1)
    return torch.where(counts == 0, target, drawn.masked_fill(~left, 0.0).sum(dim=1) / counts.clamp_min(1))


def _headed(wanted: Wanted, columns: Tensor, scores: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return which cells are of the head, bool [n, columns], and the head's scores, [n, K], where ``scores`` hold them.

    Column 0 stands for the target.
    """
    if wanted.head is None:
        return None, None
    cells = torch.zeros((len(scores), len(columns)), dtype=torch.bool, device=scores.device)
    rows = torch.arange(len(scores), device=scores.device).unsqueeze(1).expand_as(wanted.head)
    _mark(cells, columns, rows.flatten(), wanted.head.flatten())
    cells[:, 0] = (wanted.head == wanted.items[:, :1]).any(dim=1)
    if wanted.head_at is None:
        return cells, None
    own = scores[:, wanted.head_at : wanted.head_at + wanted.head.shape[1]]
    return cells, own.masked_fill(wanted.head == 0, -torch.inf)


def _mark(cells: Tensor, columns: Tensor, rows: Tensor, items: Tensor) -> None:
    """Set the cells (row, column of item) for those of ``items`` that have a column; column 0 is nobody's."""
    found = torch.searchsorted(columns, items).clamp_max(len(columns) - 1)
    there = (columns[found] == items) & (items != 0)
    cells[rows[there], found[there]] = True


def _log_sum(values: Tensor, nothing: float) -> Tensor:
    """Return the log-sum-exp of each row; ``nothing``, without a gradient, where a row is -inf alone."""
    none = torch.isneginf(values).all(dim=1)
    return values.masked_fill(none.unsqueeze(1), 0.0).logsumexp(dim=1).masked_fill(none, nothing)
