"""One layer of a transformer, looking back alone or both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.models.dropout import Dropout

__all__ = ["Block", "BlockStyle"]

#: Width of the inner layer of a block's feed-forward part, in widths.
_INNER = 2
#: Longest wavelength of a turn, in places over 2 pi: far beyond any history.
_TURNS = 10_000.0


@dataclass(frozen=True)
class BlockStyle:
    """What sets one transformer's layers apart from another's; as it stands: SASRec's, with its norms first."""

    rotary: bool = False
    """Queries and keys are turned by their place, so that attention depends on distance (J. Su et al., "RoFormer:
    Enhanced Transformer with Rotary Position Embedding", 2021)."""
    norm_after: bool = False
    """Norms stand after each sum (A. Vaswani et al., 2017), not before each part (R. Xiong et al., "On Layer
    Normalization in the Transformer Architecture", ICML 2020)."""
    gated: bool = False
    """What a part adds is multiplied by ``sigmoid(linear(state))`` (F. Borisyuk et al., "From Features to Transformers:
    Redefining Ranking for Scalable Impact" (LiGR), 2025; for SASRec: D. Tikhonovich et al., "eSASRec", RecSys 2025)."""


class Block(nn.Module):
    """Attention, then a feed-forward part with GELU inside, each added to what came in.

    Attention itself has no dropout, which keeps the fused kernel in use during
    training on a CPU.
    """

    def __init__(self, width: int, heads: int, dropout: float, style: BlockStyle | None = None) -> None:
        """Make a layer of ``width``, which ``heads`` divide."""
        super().__init__()
        self.heads = heads
        self.style = style or BlockStyle()
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.inner_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, _INNER * width)
        self.outer = nn.Linear(_INNER * width, width)
        self.dropout = Dropout(dropout)
        if self.style.gated:
            self.attention_gate = nn.Linear(width, width)
            self.inner_gate = nn.Linear(width, width)

    def forward(self, state: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the next state, float [B, L, width].

        Args:
            state: float [B, L, width].
            visible: bool [B, L], the places that every place looks at, at least one a row;
                ``None``: each looks at itself and what is to its left.
        """
        after = self.style.norm_after
        found = self._attend(state if after else self.attention_norm(state), visible)
        if self.style.gated:
            found = found * self.attention_gate(state).sigmoid()
        state = state + self.dropout(found)
        if after:
            state = self.attention_norm(state)
        found = self.outer(functional.gelu(self.inner(state if after else self.inner_norm(state))))
        if self.style.gated:
            found = found * self.inner_gate(state).sigmoid()
        result: Tensor = state + self.dropout(found)
        return self.inner_norm(result) if after else result

    def extra_repr(self) -> str:
        """Return how it is built, for its repr."""
        return str(self.style)

    def _attend(self, state: Tensor, visible: Tensor | None) -> Tensor:
        batch, length, width = state.shape
        split = self.query_key_value(state).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        if self.style.rotary:
            query, key = _turned(query), _turned(key)
        mixed = _attention(query, key, value, visible)
        merged: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return merged


def _turned(values: Tensor) -> Tensor:
    """Return float [B, heads, L, d] with each pair (i, i + d/2) turned by place * 10000^(-2i/d)."""
    length, half = values.shape[2], values.shape[3] // 2
    rates = _TURNS ** -(torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = torch.arange(length, device=values.device, dtype=torch.float32).unsqueeze(1) * rates
    cos, sin = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    one, two = values[..., :half], values[..., half:]
    return torch.cat([one * cos - two * sin, one * sin + two * cos], dim=-1)


def _attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Return attention, float [B, heads, L, width / heads]."""
    causal, mask = visible is None, None if visible is None else visible[:, None, None, :]
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
    # The CPU's fused kernel is many times slower backwards in bfloat16 than in float32.
    wide = torch.promote_types(query.dtype, torch.float32)
    query, key, value = query.to(wide), key.to(wide), value.to(wide)
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
