"""A causal transformer over a person's events (SASRec-style)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.models.dropout import Dropout
from stillhouse.models.protocol import EMBEDDING_STD, SequenceModel
from stillhouse.params.model import TransformerSpec

__all__ = ["Transformer"]

#: Width of the inner layer of a block's feed-forward part, in widths.
_INNER = 2


class Transformer(SequenceModel):
    """Self-attention over the events so far, with learned positions and tied item weights.

    Position 0 is the oldest event of the window. Blocks are pre-norm, with GELU
    in the feed-forward part; attention itself has no dropout, which keeps the
    fused kernel in use during training on a CPU.

    Source: W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation",
    ICDM 2018; trained here with full cross-entropy instead of sampled negatives.
    """

    def __init__(self, spec: TransformerSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.width, spec.length)
        self.positions = nn.Parameter(torch.empty(spec.length, spec.width))
        nn.init.normal_(self.positions, std=EMBEDDING_STD)
        self.dropout = Dropout(spec.dropout)
        self.blocks = nn.ModuleList(_Block(spec) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.width)

    def hidden(self, histories: Tensor) -> Tensor:
        """Return the state after each event, float [B, L, width]."""
        events = self.items(histories) * math.sqrt(self.width)
        state = self.dropout(events + self.positions[: histories.shape[1]])
        for block in self.blocks:
            state = block(state)
        normed: Tensor = self.norm(state)
        return normed


class _Block(nn.Module):
    """Attention, then a feed-forward part, each added to what came in."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.attention_norm = nn.LayerNorm(spec.width)
        self.query_key_value = nn.Linear(spec.width, 3 * spec.width)
        self.attention_out = nn.Linear(spec.width, spec.width)
        self.inner_norm = nn.LayerNorm(spec.width)
        self.inner = nn.Linear(spec.width, _INNER * spec.width)
        self.outer = nn.Linear(_INNER * spec.width, spec.width)
        self.dropout = Dropout(spec.dropout)

    def forward(self, state: Tensor) -> Tensor:
        """Return the next state, float [B, L, width]."""
        state = state + self.dropout(self._attend(self.attention_norm(state)))
        inner = functional.gelu(self.inner(self.inner_norm(state)))
        result: Tensor = state + self.dropout(self.outer(inner))
        return result

    def _attend(self, state: Tensor) -> Tensor:
        batch, length, width = state.shape
        split = self.query_key_value(state).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _attention(query, key, value)
        merged: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return merged


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return causal attention, float [B, heads, L, width / heads]."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    # The CPU's fused kernel is many times slower backwards in bfloat16 than in float32.
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(query.to(wide), key.to(wide), value.to(wide), is_causal=True)
