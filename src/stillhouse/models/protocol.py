"""What every model has in common, so that the loop, the store and the package know one shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.models.product_items import ProductItems
from stillhouse.models.queries import Queries, best_product

__all__ = ["EMBEDDING_STD", "PositionScorer", "Recommender", "Rows", "SequenceModel", "prefixes"]

#: Spread of a fresh embedding row: scores of a fresh model are nearly uniform.
EMBEDDING_STD = 0.02

Rows = slice | Tensor
"""Some of a batch's real positions, in (row, position) order: a slice, or their numbers as int64."""


@dataclass(frozen=True)
class PositionScorer:
    """One batch, read once: the scores of its N real positions, asked for a few at a time."""

    score: Callable[[Rows], Tensor]
    """Gives the scores of some positions, float [n, n_items + 1]."""
    states: Tensor | None = None
    """float [N, queries * width]: the state behind each position, as `Recommender.position_hidden` gives it;
    ``None``: there is no such thing."""

    def __call__(self, some: Rows) -> Tensor:
        """Return the scores of ``some`` positions, float [n, n_items + 1]."""
        return self.score(some)


class Recommender(nn.Module, ABC):
    """Scores every item as what comes next, after a whole history or after each of its events.

    Histories are int64 [B, L] with L at most `length`, oldest event first and
    padded with 0 on the RIGHT; padding changes nothing. What stands for a position
    depends on nothing to its right. Column 0 of all scores is -inf, the others are
    finite. Scores are logits: their softmax is what the model believes.
    """

    mask: Tensor

    def __init__(self, n_items: int, length: int) -> None:
        """Score ``n_items`` items and look ``length`` events back."""
        super().__init__()
        self.n_items = n_items
        self.length = length
        mask = torch.zeros(n_items + 1)
        mask[0] = -torch.inf
        self.register_buffer("mask", mask, persistent=False)

    @abstractmethod
    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next after each whole history.

        Args:
            histories: int64 [B, L], right-padded with 0, 1 ≤ L ≤ `length`.
            users: int64 [B], the user index of each row where the rows are positions that
                were trained on: a cross-fitted model then answers with what it learnt
                without that user. ``None``: held-out histories, answered with all it knows.

        Returns:
            float [B, n_items + 1]; column 0 is -inf, the others are finite, after an
            empty history (all 0) too.
        """

    def position_scorer(self, histories: Tensor, users: Tensor | None = None) -> PositionScorer:
        """Read a batch once, so that its positions can be scored a few at a time.

        Args:
            histories: int64 [B, L] as `forward` takes them.
            users: as `forward` takes them.

        Returns:
            what scores some of the N cells that are not padding, in (row, position) order:
            float [n, n_items + 1], where position t has seen the events 0..t alone.
        """
        rows, steps = (histories != 0).nonzero(as_tuple=True)

        def score(some: Rows) -> Tensor:
            scores: Tensor = self(*prefixes(histories, users, rows[some], steps[some]))
            return scores

        return PositionScorer(score)

    def position_scores(self, histories: Tensor, users: Tensor | None = None, rows: Rows | None = None) -> Tensor:
        """Return the scores at real positions, float [n, n_items + 1]: those of ``rows``, or all N of the batch."""
        return self.position_scorer(histories, users)(slice(None) if rows is None else rows)

    def position_hidden(self, histories: Tensor) -> Tensor | None:
        """Return the states behind the N real positions, float [N, queries * width]; ``None``: there are none."""
        return None

    def item_table(self) -> Tensor | None:
        """Return the rows that score, float [n_items + 1, width], row 0 padding; ``None``: there are none."""
        return None


def prefixes(histories: Tensor, users: Tensor | None, rows: Tensor, steps: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what `Recommender.forward` takes so as to score positions: the events up to each, and who they are of.

    Args:
        histories: int64 [B, L].
        users: int64 [B] or ``None``.
        rows: int64 [n], the row of each position.
        steps: int64 [n], the place of each position in its row.

    >>> prefixes(torch.tensor([[3, 1, 2]]), None, torch.tensor([0, 0]), torch.tensor([0, 1]))[0]
    tensor([[3, 0],
            [3, 1]])
    """
    width = int(steps.max()) + 1 if len(steps) else 1
    places = torch.arange(width, device=histories.device)
    events = histories[rows, :width] * (places <= steps.unsqueeze(1))
    return events, None if users is None else users[rows]


class SequenceModel(Recommender):
    """A model that is trained by gradient steps: a state behind each event, scored by the item table.

    The item table is tied: the rows that go in are the rows that score.
    """

    def __init__(self, n_items: int, width: int, length: int, queries: int = 1) -> None:
        """Make the item table of ``n_items`` + 1 rows; row 0 (padding) is zero and stays zero."""
        super().__init__(n_items, length)
        self.width = width
        items = nn.Embedding(n_items + 1, width, padding_idx=0)
        nn.init.normal_(items.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            items.weight[0].zero_()
        self.items: nn.Embedding | ProductItems = items
        self.queries = Queries(width, queries) if queries > 1 else None

    @abstractmethod
    def hidden(self, histories: Tensor) -> Tensor:
        """Return the state after each event.

        Args:
            histories: int64 [B, L], right-padded with 0, 1 ≤ L ≤ `length`.

        Returns:
            float [B, L, width]; what stands at padded places means nothing, but is finite.
        """

    def asked(self, state: Tensor) -> Tensor:
        """Return the queries that ``state``, float [..., width], asks with: float [..., queries * width]."""
        return state if self.queries is None else self.queries(state)

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the score of every item for each state.

        The products are float32 at least, also where states are made in mixed precision: of the 8 bits that
        bfloat16 keeps of a score many items would share all, and a store would keep their noise.

        Args:
            hidden: float [..., queries * width].

        Returns:
            float [..., n_items + 1], unbounded; column 0 is -inf.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.promote_types(hidden.dtype, torch.float32)
            return self._products(hidden.to(wide), self.items.weight.to(wide))

    def _products(self, hidden: Tensor, table: Tensor) -> Tensor:
        if self.queries is not None:
            return best_product(hidden, table) + self.mask
        if not self.training:
            return nn.functional.linear(hidden, table, self.mask.to(table.dtype))
        # In training the table is large and adding a row to it costs a copy. No loss has a
        # gradient where a score is -inf, so nothing is lost by writing behind autograd's back.
        scores = nn.functional.linear(hidden, table)
        with torch.no_grad():
            scores.select(-1, 0).fill_(-torch.inf)
        return scores

    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next after each whole history; ``users`` changes nothing.

        An empty history (all 0) is scored from the state of a single padding event.
        """
        hidden = self.hidden(histories)
        last = ((histories != 0).sum(dim=1) - 1).clamp_min(0)
        at_last = last[:, None, None].expand(-1, 1, self.width)
        return self.scores(self.asked(hidden.gather(1, at_last).squeeze(1)))

    def position_hidden(self, histories: Tensor) -> Tensor:
        """Return the state behind each of the N real positions, float [N, queries * width]."""
        return self._at(histories, (histories != 0).flatten().nonzero().squeeze(1))

    def _at(self, histories: Tensor, real: Tensor) -> Tensor:
        """Return what is asked with at the cells ``real``, int64 [N], of the flat ``histories``."""
        hidden = self.hidden(histories).flatten(0, 1)
        return self.asked(hidden if len(real) == len(hidden) else hidden.index_select(0, real))

    def training_states(self, histories: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the states that a training step learns from, and which positions they are.

        Args:
            histories: int64 [B, L], the events of each row.
            targets: int64 [N], the event after each of the N real positions.

        Returns:
            float [M, queries * width] and int64 [M], ascending numbers in 0..N-1; ``None`` in place of the
            numbers: every position, in order. Here it is every position, each having seen what
            stands before its target; a model that learns another way chooses for itself.
        """
        # How many there are is known here: a GPU that is left to count them is waited for.
        real = torch.nonzero_static((histories != 0).flatten(), size=len(targets)).squeeze(1)
        return self._at(histories, real), None

    def position_scorer(self, histories: Tensor, users: Tensor | None = None) -> PositionScorer:
        """Read a batch once: its states are kept, its scores are made as they are asked for."""
        states = self.position_hidden(histories)
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        return PositionScorer(lambda some: self.scores(wide[some]), wide)

    def item_table(self) -> Tensor:
        """Return the tied item table, float [n_items + 1, width]."""
        return self.items.weight
