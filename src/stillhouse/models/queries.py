"""Several queries in place of one: a narrow item table that can hold more than its width."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Products", "Queries", "best_product"]

#: Width of the inner layer, in widths.
_INNER = 4


class Queries(nn.Module):
    """Several vectors of one state: itself, moved by what a small network says for each.

    An item's score is the best of its products with them. Scores that are products with one narrow
    vector have no more independent directions than it has numbers; the best of several are under
    no such bound, for which hardly a byte is added.

    Sources: Z. Yang et al., "Breaking the Softmax Bottleneck", ICLR 2018 (the bound); C. Li et al.,
    "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", CIKM 2019 (the best of several).
    """

    def __init__(self, width: int, queries: int) -> None:
        """Make ``queries`` vectors of ``width`` numbers out of one."""
        super().__init__()
        self._queries = queries
        self.inner = nn.Linear(width, _INNER * width)
        self.outer = nn.Linear(_INNER * width, queries * width)

    def forward(self, state: Tensor) -> Tensor:
        """Return the queries of ``state``, float [..., width], one behind the other: float [..., queries * width]."""
        moved: Tensor = self.outer(functional.gelu(self.inner(state)))
        return torch.cat([state] * self._queries, dim=-1) + moved


def best_product(hidden: Tensor, table: Tensor) -> Tensor:
    """Return the best product of each row of ``table`` with the queries of each state.

    Args:
        hidden: float [..., queries * width].
        table: float [n, width].

    Returns:
        float [..., n]; two queries that are equally good share the gradient (by `Products` the first has it).

    >>> best_product(torch.tensor([[1.0, 0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]))
    tensor([[1., 2., 1.]])
    """
    # One after the other: a table of all queries' products at once would be as many times as large.
    first, *others = torch.split(hidden, table.shape[1], dim=-1)
    best = functional.linear(first, table)
    for other in others:
        best = torch.maximum(best, functional.linear(other, table))
    return best


class Products:
    """The best products of some states with a table, part by part, and the way back from them by hand.

    It keeps the products of one part, in the type in which they are made, in memory of its own, which the next part
    uses again.
    """

    def __init__(self, table: Tensor, queries: int, most: int, kept: torch.dtype) -> None:
        """Multiply with ``table``, float [n, width], at most ``most`` states of ``queries`` at once; give ``kept``."""
        self._table, self._queries, self._kept = table, queries, kept
        rows = most if queries > 1 else 0
        self._each = table.new_empty((queries, rows, len(table)))
        self._best = table.new_empty((rows, len(table)))

    def best(self, states: Tensor) -> Tensor:
        """Return the best product of each row with the queries of ``states``, [N, queries * width]: [N, n]."""
        if self._queries == 1:
            return torch.mm(states, self._table.T).to(self._kept)
        each, best = self._each[:, : len(states)], self._best[: len(states)]
        for products, query in zip(each, self._split(states), strict=True):
            torch.mm(query, self._table.T, out=products)
        torch.maximum(each[0], each[1], out=best)
        for products in each[2:]:
            torch.maximum(best, products, out=best)
        return best.to(self._kept, copy=True)

    def back(self, states: Tensor, slope: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Give, query by query, what a loss's gradient ``slope``, [N, n], is to them and to the table by them.

        Each score moves the first of its best queries. ``slope`` is used up.

        Yields:
            of the states that `best` saw last: [N, width], and of the table: [n, width].
        """
        left = slope.to(self._table.dtype)
        *before, last = self._split(states)
        for products, query in zip(self._each, before, strict=False):
            own = products[: len(states)]
            share = torch.eq(own, self._best[: len(states)], out=own).mul_(left)
            left -= share
            yield torch.mm(share, self._table), torch.mm(share.T, query)
        # What no query before it has taken is the last one's.
        yield torch.mm(left, self._table), torch.mm(left.T, last)

    def _split(self, states: Tensor) -> tuple[Tensor, ...]:
        return torch.split(states, self._table.shape[1], dim=1)
