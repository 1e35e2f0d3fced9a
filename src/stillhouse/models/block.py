"""One layer of a transformer, looking back alone or both ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.models.dropout import Dropout

__all__ = ["Block"]

#: Width of the inner layer of a block's feed-forward part, in widths.
_INNER = 2


class Block(nn.Module):
    """Attention, then a feed-forward part, each added to what came in; norms come first, GELU is inside.

    Attention itself has no dropout, which keeps the fused kernel in use during
    training on a CPU.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """Make a layer of ``width``, which ``heads`` divide."""
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.inner_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, _INNER * width)
        self.outer = nn.Linear(_INNER * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, state: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the next state, float [B, L, width].

        Args:
            state: float [B, L, width].
            visible: bool [B, L], the places that every place looks at, at least one a row;
                ``None``: each looks at itself and what is to its left.
        """
        state = state + self.dropout(self._attend(self.attention_norm(state), visible))
        inner = functional.gelu(self.inner(self.inner_norm(state)))
        result: Tensor = state + self.dropout(self.outer(inner))
        return result

    def _attend(self, state: Tensor, visible: Tensor | None) -> Tensor:
        batch, length, width = state.shape
        split = self.query_key_value(state).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _attention(query, key, value, visible)
        merged: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return merged


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
