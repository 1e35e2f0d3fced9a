"""Bringing what the host made to the device that trains."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``tensor``, which is on the host, on ``device`` and as ``dtype`` (``None``: its own).

    A GPU fetches it when it comes to it. From memory that the kernel may move, the host would first have to wait for
    all that the GPU is still to do.
    """
    if device.type != "cuda":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, non_blocking=True).to(dtype or tensor.dtype)
