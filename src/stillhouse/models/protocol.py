"""What every sequence model has in common, so that the loop, the store and the package know one shape."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["EMBEDDING_STD", "SequenceModel"]

#: Spread of a fresh embedding row: scores of a fresh model are nearly uniform.
EMBEDDING_STD = 0.02


class SequenceModel(nn.Module, ABC):
    """Scores every item after each event of a history.

    Histories are int64 [B, L] with L at most `length`, oldest event first and
    padded with 0 on the RIGHT. A model is causal: the hidden state of an event
    depends on nothing to its right, so padding changes nothing and needs no mask.
    The item table is tied: the rows that go in are the rows that score.
    """

    mask: Tensor

    def __init__(self, n_items: int, width: int, length: int) -> None:
        """Make the item table of ``n_items`` + 1 rows; row 0 (padding) is zero and stays zero."""
        super().__init__()
        self.n_items = n_items
        self.width = width
        self.length = length
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        nn.init.normal_(self.items.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.items.weight[0].zero_()
        mask = torch.zeros(n_items + 1)
        mask[0] = -torch.inf
        self.register_buffer("mask", mask, persistent=False)

    @abstractmethod
    def hidden(self, histories: Tensor) -> Tensor:
        """Return the state after each event.

        Args:
            histories: int64 [B, L], right-padded with 0, 1 ≤ L ≤ `length`.

        Returns:
            float [B, L, width]; what stands at padded places means nothing, but is finite.
        """

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the score of every item for each state.

        Args:
            hidden: float [..., width].

        Returns:
            float [..., n_items + 1], unbounded; column 0 is -inf.
        """
        if not self.training:
            return nn.functional.linear(hidden, self.items.weight, self.mask)
        # In training the table is large and adding a row to it costs a copy. No loss has a
        # gradient where a score is -inf, so nothing is lost by writing behind autograd's back.
        scores = nn.functional.linear(hidden, self.items.weight)
        with torch.no_grad():
            scores.select(-1, 0).fill_(-torch.inf)
        return scores

    def forward(self, histories: Tensor) -> Tensor:
        """Return the scores of what comes next after each whole history.

        Args:
            histories: int64 [B, L], right-padded with 0, 1 ≤ L ≤ `length`.

        Returns:
            float [B, n_items + 1]; column 0 is -inf, the others are finite. An empty
            history (all 0) is scored from the state of a single padding event.
        """
        hidden = self.hidden(histories)
        last = ((histories != 0).sum(dim=1) - 1).clamp_min(0)
        at_last = last[:, None, None].expand(-1, 1, self.width)
        return self.scores(hidden.gather(1, at_last).squeeze(1))
