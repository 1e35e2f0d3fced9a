"""A few positions against the whole catalogue: what an objective wants to know, and the gradient back.

The scores of a batch against all items are by far the largest tensor of a training
step. They are read here once, turned into exponentials in place, and the same table
becomes the gradient: log-sum-exps over all items, over unseen ones and over the tail
share one exponential at each temperature, because they differ by a few cells a row.
Those cells are set aside before a sum and written back after it, so that no sum is
the difference of two larger ones. They are set aside as exponentials, not as scores of
-inf before: a processor's exponential is several times slower where it meets those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.distill.protocol import Answer, Wanted
from stillhouse.distill.seen import Seen

__all__ = ["Look", "look"]

#: What the unseen items of a row, and its tail, are counted as at least, relative to the row's best item: a
#: float32 would make nothing of less, and the logarithm stays finite. (70 nats: no model that is being trained.)
_LEAST = 1e-30


@dataclass
class _Table:
    """The exponentials at one temperature, relative to the row's best item, and what was set aside of them."""

    exps: Tensor
    """[n, n_items + 1], 0 at column 0 and, where unseen items are summed, at what was seen and at the head."""
    head: Tensor | None
    seen: Tensor | None
    """[P], where all items are summed beside the unseen ones."""
    total: Tensor
    unseen: Tensor
    tail: Tensor


class _Cells:
    """Where the seen items of n rows stand in their table of scores."""

    def __init__(self, seen: Seen | tuple[Tensor, Tensor], rows: int, columns: int) -> None:
        self.rows, items = seen
        self.flat = torch.add(items, self.rows, alpha=columns)
        self.counts = seen.counts if isinstance(seen, Seen) else torch.bincount(self.rows, minlength=rows)
        self._runs = seen if isinstance(seen, Seen) else None

    @property
    def most(self) -> int:
        """The most seen items of a row."""
        if self._runs is not None:
            return self._runs.most
        return int(self.counts.max()) if len(self.counts) else 0

    def fill(self, table: Tensor, value: float) -> None:
        """Write ``value`` into the cells of ``table``."""
        table.view(-1).index_fill_(0, self.flat, value)

    def take(self, table: Tensor) -> Tensor:
        """Return the cells of ``table``, [P]."""
        return table.view(-1).index_select(0, self.flat)

    def add(self, table: Tensor, values: Tensor) -> None:
        """Add ``values``, [P], to the cells of ``table``."""
        table.view(-1).index_add_(0, self.flat, values)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of each row's ``values``, [n]."""
        return torch.segment_reduce(values, "sum", lengths=self.counts, unsafe=True)


class Look:
    """One look at n positions; `leaves` are what is wanted, `gradient` takes their gradients back to the scores."""

    def __init__(self, scores: Tensor, wanted: Wanted) -> None:
        """Look at ``scores``, float [n, n_items + 1], which is used up; column 0 is never a candidate."""
        self._wanted, self._columns = wanted, scores.shape[1]
        self._head = wanted.head if wanted.tail else None
        scores[:, 0] = -torch.inf
        self.scores = scores.gather(1, wanted.items)
        self._none = scores.new_zeros(len(scores))
        asked = bool(wanted.temperatures) or wanted.mean
        self._cells = _Cells(wanted.seen, *scores.shape) if asked and wanted.seen is not None else None
        self._candidates = self._none.add(self._columns - 1)
        if self._cells is not None:
            self._candidates = self._candidates.sub_(self._cells.counts).clamp_min_(1.0)
        self.mean = self._mean(scores) if wanted.mean else self._none
        # What stands at padding must not be the best, and must not be far from it either.
        scores[:, 0] = scores[:, -1]
        self.top_items: Tensor | None = None
        self.top_scores: Tensor | None = None
        self._at_head: Tensor | None = None
        # All items at temperature 1 have a table of their own only where no other is at that temperature.
        kept = sorted({*wanted.temperatures, *((1.0,) if wanted.total else ())})
        self._peak = scores.amax(dim=1) if kept else self._none
        self._tables: dict[float, _Table] = {}
        for place, temperature in enumerate(kept):
            last = place == len(kept) - 1
            self._tables[temperature] = self._table(scores if last else scores.clone(), temperature)
        ones = self._tables.get(1.0) if wanted.total else None
        self.log_total = self._none if ones is None else ones.total.log() + self._peak
        self.log_unseen = {t: self._tables[t].unseen.log() + self._peak / t for t in wanted.temperatures}
        self.log_tail = {t: self._tables[t].tail.log() + self._peak / t for t in wanted.temperatures}

    def leaves(self) -> list[Tensor]:
        """Return what is wanted, in an order that `gradient` knows: detached tensors."""
        sums = [logs[t] for t in self._wanted.temperatures for logs in (self.log_unseen, self.log_tail)]
        top = [] if self.top_scores is None else [self.top_scores]
        return [self.scores, self.log_total, self.mean, *top, *sums]

    def answer(self, leaves: Sequence[Tensor], hidden: Tensor) -> Answer:
        """Return ``leaves`` by name."""
        scores, total, mean, *rest = leaves
        top = None if self.top_scores is None else rest.pop(0)
        temperatures = self._wanted.temperatures
        unseen = dict(zip(temperatures, rest[::2], strict=True))
        tail = dict(zip(temperatures, rest[1::2], strict=True))
        return Answer(scores, hidden, total, unseen, tail, mean, self.top_items, top)

    def gradient(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Return the gradient of a loss against the scores, float [n, n_items + 1], given that against `leaves`.

        It is the table of exponentials, overwritten: a look answers once.
        """
        at_scores, at_total, at_mean, *rest = gradients
        at_top = None if self.top_scores is None else rest.pop(0)
        pairs = zip(self._wanted.temperatures, rest[::2], rest[1::2], strict=True)
        sums = {temperature: (unseen, tail) for temperature, unseen, tail in pairs}
        result: Tensor | None = None
        for temperature, table in self._tables.items():
            total = at_total if temperature == 1.0 and self._wanted.total else None
            part = self._through(table, temperature, total, *sums.get(temperature, (None, None)))
            result = part if result is None else result.add_(part)
        if result is None:
            result = self.scores.new_zeros((len(self.scores), self._columns))
        if at_mean is not None and self._wanted.mean:
            share = at_mean / self._candidates
            result += share.unsqueeze(1)
            if self._cells is not None:
                self._cells.add(result, share.neg().index_select(0, self._cells.rows))
        if at_scores is not None or self._at_head is not None:
            result.scatter_add_(1, self._wanted.items, self._at_items(at_scores))
        if at_top is not None and self.top_items is not None:
            result.scatter_add_(1, self.top_items, at_top)
        # Whatever was handed back for padding.
        result[:, 0] = 0.0
        return result

    def _mean(self, scores: Tensor) -> Tensor:
        """Return the mean over the unseen items, [n]; 0 where there are none."""
        total = scores[:, 1:].sum(dim=1)
        if self._cells is not None:
            total -= self._cells.sums(self._cells.take(scores))
            total.masked_fill_(self._cells.counts >= self._columns - 1, 0.0)
        return total / self._candidates

    def _table(self, scores: Tensor, temperature: float) -> _Table:
        """Turn ``scores`` into exponentials in place, and sum them."""
        exps = scores.sub_(self._peak.unsqueeze(1))
        if temperature != 1.0:
            exps.div_(temperature)
        exps.exp_()
        exps[:, 0] = 0.0
        wanted, head, seen = self._wanted, None, None
        apart = temperature in wanted.temperatures
        if apart and self._cells is not None:
            if wanted.total and temperature == 1.0:
                seen = self._cells.take(exps)
            self._cells.fill(exps, 0.0)
        if wanted.top and apart and self.top_items is None:
            self._take_top(exps, temperature)
        if apart and self._head is not None:
            head = self._head_of(exps, self._head, temperature)
            exps.scatter_(1, self._head, 0.0)
        tail = exps.sum(dim=1)
        unseen = (tail if head is None else tail + head.sum(dim=1)).clamp_min(_LEAST)
        if apart and self._head is not None:
            # Exactly 0 means that there is no tail; next to nothing is counted as next to nothing.
            tail = self._without_tailless(tail.clamp_min(_LEAST), self._head)
        total = unseen if seen is None or self._cells is None else unseen + self._cells.sums(seen)
        return _Table(exps, head, seen, total, unseen, tail)

    def _head_of(self, exps: Tensor, head: Tensor, temperature: float) -> Tensor:
        at = self._wanted.head_at
        if at is None:
            return exps.gather(1, head)
        raw = self.scores[:, at : at + head.shape[1]] - self._peak.unsqueeze(1)
        return (raw if temperature == 1.0 else raw.div_(temperature)).exp_()

    def _at_items(self, at_scores: Tensor | None) -> Tensor:
        """Return what is added at the wanted items: their own gradient, and that of the sums over the head."""
        at = self._wanted.head_at
        if self._at_head is None or at is None:
            return torch.zeros_like(self.scores) if at_scores is None else at_scores
        found = torch.zeros_like(self.scores) if at_scores is None else at_scores.clone()
        found[:, at : at + self._at_head.shape[1]] += self._at_head
        return found

    def _take_top(self, exps: Tensor, temperature: float) -> None:
        best, items = exps.topk(min(self._wanted.top, self._columns), dim=1)
        none = best == 0
        self.top_items = items.masked_fill_(none, 0)
        self.top_scores = best.log_().mul_(temperature).add_(self._peak.unsqueeze(1))

    def _without_tailless(self, tail: Tensor, head: Tensor) -> Tensor:
        """Write 0 into ``tail``, [n], where a row has no unseen item outside the head."""
        candidates = self._columns - 1
        if head.shape[1] + (0 if self._cells is None else self._cells.most) < candidates:
            return tail
        taken = (head != 0).sum(dim=1)
        if self._cells is not None:
            taken += self._cells.counts
        return tail.masked_fill_(taken >= candidates, 0.0)

    def _through(
        self, table: _Table, temperature: float, total: Tensor | None, unseen: Tensor | None, tail: Tensor | None
    ) -> Tensor:
        """Return exps * (what each sum's gradient gives a unit of exponential), cell by cell."""
        of_all = self._none if total is None else total / table.total
        of_unseen = of_all if unseen is None else of_all + unseen / table.unseen
        of_tail = of_unseen
        if tail is not None:
            of_tail = of_unseen + tail / table.tail.masked_fill(table.tail == 0, torch.inf)
        exps = table.exps.mul_((of_tail / temperature).unsqueeze(1))
        if table.head is not None and self._head is not None:
            at_head = table.head.mul_((of_unseen / temperature).unsqueeze(1))
            if self._wanted.head_at is None:
                exps.scatter_(1, self._head, at_head)
            else:
                self._at_head = at_head if self._at_head is None else self._at_head.add_(at_head)
        if table.seen is not None and total is not None and self._cells is not None:
            self._cells.add(exps, table.seen * of_all.index_select(0, self._cells.rows))
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
