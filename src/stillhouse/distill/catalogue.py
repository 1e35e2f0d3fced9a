"""A few positions against the whole catalogue: what an objective wants to know, and the gradient back.

The scores of a batch against all items are by far the largest tensor of a training
step. They are read here once, turned into exponentials in place, and the same table
becomes the gradient: log-sum-exps over all items, over unseen ones and over the tail
share one exponential at each temperature, because they differ by a few cells a row.
Those cells are set aside before a sum and written back after it, so that no sum is
the difference of two larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.distill.protocol import Answer, Wanted

__all__ = ["Look", "look"]

#: What the unseen items of a row, and its tail, are counted as at least, relative to the row's best item: a
#: float32 would make nothing of less, and the logarithm stays finite. (70 nats: no model that is being trained.)
_LEAST = 1e-30


@dataclass
class _Table:
    """The exponentials at one temperature, and what was set aside of them."""

    exps: Tensor
    """[n, n_items + 1], 0 at column 0 and, where the tail is wanted, at what was seen and at the head."""
    head: Tensor | None
    seen: Tensor | None
    total: Tensor
    unseen: Tensor
    tail: Tensor


class Look:
    """One look at n positions; `leaves` are what is wanted, `gradient` takes their gradients back to the scores."""

    def __init__(self, scores: Tensor, wanted: Wanted) -> None:
        """Look at ``scores``, float [n, n_items + 1], which is used up; column 0 is never a candidate."""
        self._wanted = wanted
        self._columns = scores.shape[1]
        self._cells = None if wanted.seen is None else wanted.seen[0] * self._columns + wanted.seen[1]
        padding = wanted.items == 0
        self._padding = padding
        self.scores = scores.gather(1, wanted.items).masked_fill_(padding, -torch.inf)
        scores[:, 0] = 0.0
        none = scores.new_zeros(len(scores))
        self.mean = scores.sum(dim=1) / (self._columns - 1) if wanted.mean else none
        self._tables: dict[float, _Table] = {}
        kept = sorted({*wanted.temperatures, *((1.0,) if wanted.total else ())})
        top = scores[:, 1:].amax(dim=1) if kept else none
        for place, temperature in enumerate(kept):
            last = place == len(kept) - 1
            self._tables[temperature] = self._table(scores if last else scores.clone(), top, temperature)
        ones = self._tables.get(1.0)
        self.log_total = none if ones is None or not wanted.total else ones.total.log() + top
        logs = {t: (self._tables[t], top / t) for t in wanted.temperatures}
        self.log_unseen = {t: table.unseen.log() + peak for t, (table, peak) in logs.items()}
        self.log_tail = {t: table.tail.log() + peak for t, (table, peak) in logs.items()}

    def leaves(self) -> list[Tensor]:
        """Return what is wanted, in an order that `gradient` knows: detached tensors."""
        sums = [logs[t] for t in self._wanted.temperatures for logs in (self.log_unseen, self.log_tail)]
        return [self.scores, self.log_total, self.mean, *sums]

    def answer(self, leaves: Sequence[Tensor], hidden: Tensor) -> Answer:
        """Return ``leaves`` by name."""
        scores, total, mean, *sums = leaves
        temperatures = self._wanted.temperatures
        unseen = dict(zip(temperatures, sums[::2], strict=True))
        tail = dict(zip(temperatures, sums[1::2], strict=True))
        return Answer(scores=scores, hidden=hidden, log_total=total, log_unseen=unseen, log_tail=tail, mean=mean)

    def gradient(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Return the gradient of a loss against the scores, float [n, n_items + 1], given that against `leaves`.

        It is the table of exponentials, overwritten: a look answers once.
        """
        at_scores, at_total, at_mean, *at_sums = gradients
        pairs = zip(self._wanted.temperatures, at_sums[::2], at_sums[1::2], strict=True)
        sums = {temperature: (unseen, tail) for temperature, unseen, tail in pairs}
        result: Tensor | None = None
        for temperature, table in self._tables.items():
            total = at_total if temperature == 1.0 and self._wanted.total else None
            part = self._through(table, temperature, total, *sums.get(temperature, (None, None)))
            result = part if result is None else result.add_(part)
        if result is None:
            result = self.scores.new_zeros((len(self.scores), self._columns))
        if at_mean is not None and self._wanted.mean:
            result += (at_mean / (self._columns - 1)).unsqueeze(1)
        if at_scores is not None:
            result.scatter_add_(1, self._wanted.items, at_scores.masked_fill(self._padding, 0.0))
        result[:, 0] = 0.0
        return result

    def _table(self, scores: Tensor, top: Tensor, temperature: float) -> _Table:
        exps = scores.sub_(top.unsqueeze(1))
        if temperature != 1.0:
            exps.div_(temperature)
        exps.exp_()
        exps[:, 0] = 0.0
        wanted, head, seen = self._wanted, None, None
        apart = temperature in wanted.temperatures
        total: Tensor | float = 0.0
        if apart and self._cells is not None and wanted.seen is not None:
            seen = torch.take(exps, self._cells)
            exps.view(-1).index_fill_(0, self._cells, 0.0)
            total = torch.zeros_like(top).index_add_(0, wanted.seen[0], seen)
        if apart and wanted.head is not None:
            head = exps.gather(1, wanted.head)
            exps.scatter_(1, wanted.head, 0.0)
        tail = exps.sum(dim=1)
        unseen = (tail if head is None else tail + head.sum(dim=1)).clamp_min(_LEAST)
        if wanted.head is not None:
            # Exactly 0 means that there is no tail; next to nothing is counted as next to nothing.
            tail = torch.where(self._tailless(wanted.head), 0.0, tail.clamp_min(_LEAST))
        return _Table(exps, head, seen, unseen + total, unseen, tail)

    def _tailless(self, head: Tensor) -> Tensor:
        """Which rows have no unseen item outside the head, bool [n]."""
        taken = (head != 0).sum(dim=1)
        if self._wanted.seen is not None:
            taken += torch.bincount(self._wanted.seen[0], minlength=len(taken))
        return taken >= self._columns - 1

    def _through(
        self, table: _Table, temperature: float, total: Tensor | None, unseen: Tensor | None, tail: Tensor | None
    ) -> Tensor:
        """Return exps * (what each sum's gradient gives a unit of exponential), cell by cell."""
        zero = torch.zeros_like(table.unseen)
        of_all = zero if total is None else total / table.total
        of_unseen = of_all + (zero if unseen is None else unseen / table.unseen)
        at_tail = zero if tail is None else tail / torch.where(table.tail > 0, table.tail, torch.inf)
        exps = table.exps
        exps.mul_(((of_unseen + at_tail) / temperature).unsqueeze(1))
        if table.head is not None and self._wanted.head is not None:
            head = table.head * (of_unseen / temperature).unsqueeze(1)
            exps.scatter_(1, self._wanted.head, head)
        if table.seen is not None and total is not None and self._cells is not None and self._wanted.seen is not None:
            seen = table.seen * (of_all / temperature).index_select(0, self._wanted.seen[0])
            exps.view(-1).index_add_(0, self._cells, seen)
        return exps


def look(scores: Tensor, wanted: Wanted, hidden: Tensor | None = None) -> Answer:
    """Return what is ``wanted`` of ``scores``, with gradients: the whole table at once, for few positions.

    Args:
        scores: float [n, n_items + 1], unbounded; column 0 is never a candidate.
        wanted: of the same n positions.
        hidden: float [n, width], handed on; ``None``: an empty one.
    """
    *leaves, look_ = _Looked.apply(scores, wanted)  # type: ignore[no-untyped-call]
    state = scores.new_zeros((len(scores), 0)) if hidden is None else hidden
    answer: Answer = look_.look.answer(leaves, state)
    return answer


class _Box:
    """Carries a `Look` through autograd, which hands on what is no tensor."""

    def __init__(self, look: Look) -> None:
        self.look = look


class _Looked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, wanted: Wanted) -> tuple[Any, ...]:
        ctx.save_for_backward(scores)
        ctx.wanted = wanted
        seen = Look(scores.detach().clone(), wanted)
        return (*seen.leaves(), _Box(seen))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None]:
        # A look's table serves one gradient; a second call gets one of its own.
        (scores,) = ctx.saved_tensors
        return Look(scores.detach().clone(), ctx.wanted).gradient(gradients[:-1]), None
