"""What a model costs: parameters, and arithmetic a request."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from stillhouse.models.fitted import Fitted
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import Recommender

__all__ = ["cost"]

# Torch keeps the counter from its compiler, and loads that to tell it so, which takes longer than all that is counted
# here. Where it has been told, it asks nobody.
_counts = getattr(_FlopCounterMode.__torch_dispatch__, "__wrapped__", None)
if _counts is not None:
    _counts.__dynamo_disable = _counts


def cost(model: Recommender) -> dict[str, int]:
    """Return ``parameters``, ``parameters_without_embeddings`` and ``flops`` of ``model``.

    Item tables are the embeddings; a model in closed form has the weights of one of its
    tables. ``flops`` is one request of full length, where a multiplication and an addition
    count as two and only matrix products count.

    Args:
        model: on the CPU, in evaluation mode.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    total += sum(part.table_size for part in model.modules() if isinstance(part, Fitted))
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding | ProductItems)]
    embeddings = sum(weight.numel() for table in tables for weight in table.parameters())
    # The counter sees through attention only where it is written out as products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.ones((1, model.length), dtype=torch.int64))
    return {
        "parameters": total,
        "parameters_without_embeddings": total - embeddings,
        "flops": counter.get_total_flops(),
    }
