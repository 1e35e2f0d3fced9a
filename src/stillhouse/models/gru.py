"""A gated recurrent network over a person's events."""

from __future__ import annotations

import math

from torch import Tensor, nn

from stillhouse.models.dropout import Dropout
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import GruSpec

__all__ = ["Gru"]


class Gru(SequenceModel):
    """Reads events one by one into a state of fixed width; tied item weights.

    The state passes a layer norm before it scores, because a recurrent state
    lies in (-1, 1) and could not express confidence otherwise.

    Source: B. Hidasi, A. Karatzoglou, L. Baltrunas, D. Tikk, "Session-based
    Recommendations with Recurrent Neural Networks", ICLR 2016; trained here with
    full cross-entropy at every position.
    """

    def __init__(self, spec: GruSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.width, spec.length, spec.queries)
        between = spec.dropout if spec.blocks > 1 else 0.0
        self.dropout = Dropout(spec.dropout)
        self.recurrent = nn.GRU(spec.width, spec.width, spec.blocks, batch_first=True, dropout=between)
        self.norm = nn.LayerNorm(spec.width)

    def hidden(self, histories: Tensor) -> Tensor:
        """Return the state after each event, float [B, L, width]."""
        events = self.dropout(self.items(histories) * math.sqrt(self.width))
        states, _ = self.recurrent(events)
        normed: Tensor = self.norm(self.dropout(states))
        return normed
