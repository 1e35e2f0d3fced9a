"""A causal transformer over a person's events (SASRec-style)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillhouse.models.block import Block, BlockStyle
from stillhouse.models.dropout import Dropout
from stillhouse.models.protocol import EMBEDDING_STD, SequenceModel
from stillhouse.params.model import TransformerSpec

__all__ = ["Transformer"]


class Transformer(SequenceModel):
    """Self-attention over the events so far, with tied item weights.

    Position 0 is the oldest event of the window. Positions are learned vectors or
    rotations; blocks are as `BlockStyle` says.

    Source: W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation",
    ICDM 2018; trained here with full cross-entropy instead of sampled negatives.
    """

    def __init__(self, spec: TransformerSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.width, spec.length, spec.queries)
        self.positions: nn.Parameter | None = None
        if spec.positions == "learned":
            self.positions = nn.Parameter(torch.empty(spec.length, spec.width))
            nn.init.normal_(self.positions, std=EMBEDDING_STD)
        self.dropout = Dropout(spec.dropout)
        style = BlockStyle(spec.positions == "rotary", spec.norm == "after", spec.gated)
        self.blocks = nn.ModuleList(Block(spec.width, spec.heads, spec.dropout, style) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.width)

    def hidden(self, histories: Tensor) -> Tensor:
        """Return the state after each event, float [B, L, width]."""
        events = self.items(histories) * math.sqrt(self.width)
        if self.positions is not None:
            events = events + self.positions[: histories.shape[1]]
        state = self.dropout(events)
        for block in self.blocks:
            state = block(state)
        normed: Tensor = self.norm(state)
        return normed
