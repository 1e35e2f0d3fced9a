"""What a model costs: parameters, and arithmetic a request."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.models.protocol import SequenceModel

__all__ = ["cost"]


def cost(model: SequenceModel) -> dict[str, int]:
    """Return ``parameters``, ``parameters_without_embeddings`` and ``flops`` of ``model``.

    The item table is the embedding; ``flops`` is one request of full length, where a
    multiplication and an addition count as two and only matrix products count.

    Args:
        model: on the CPU, in evaluation mode.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    # The counter sees through attention only where it is written out as products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.ones((1, model.length), dtype=torch.int64))
    return {
        "parameters": total,
        "parameters_without_embeddings": total - model.items.weight.numel(),
        "flops": counter.get_total_flops(),
    }
