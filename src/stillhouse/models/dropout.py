"""Dropout whose random numbers do not cost more than the layer that they thin out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Dropout"]

_LEVELS = 256


class Dropout(nn.Module):
    """Sets a share of the values to 0 and scales the others up, in training alone.

    torch's own dropout on a CPU draws one number a value, on one thread: a quarter of a
    small transformer's step. Here one 64-bit number serves eight values, so that the
    share is a multiple of 1/256 (the nearest to what was asked for, and never 0 for a
    rate above 0); the scale is that of the share which is really dropped, so the mean is
    kept. On a GPU torch's own is used.
    """

    def __init__(self, rate: float) -> None:
        """Drop about ``rate``, in [0, 1), of the values."""
        super().__init__()
        self.rate = rate
        self._dropped = min(max(round(rate * _LEVELS), 1), _LEVELS - 1) if rate > 0.0 else 0

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values`` thinned out, of the same shape and type."""
        if not self.training or not self._dropped:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.rate)
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self._dropped
        return values * kept.to(values.dtype).mul_(_LEVELS / (_LEVELS - self._dropped))
