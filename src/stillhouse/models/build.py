"""Which class a ``kind`` in params.yaml stands for."""

from __future__ import annotations

import torch

from stillhouse.models.gru import Gru
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.transformer import Transformer
from stillhouse.params.model import GruSpec, ModelSpec, TransformerSpec

__all__ = ["build"]


def build(spec: ModelSpec, n_items: int, *, seed: int = 0) -> SequenceModel:
    """Return a fresh model of ``spec`` over ``n_items`` items.

    Args:
        spec: architecture and size.
        n_items: items in the vocabulary, at least 1 (padding not counted).
        seed: what the first weights are drawn from; torch's own generator is left as it was.

    >>> from stillhouse.params.model import GruSpec
    >>> model = build(GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0), n_items=3)
    >>> model(torch.tensor([[1, 2, 0, 0, 0]])).shape
    torch.Size([1, 4])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _construct(spec, n_items)


def _construct(spec: ModelSpec, n_items: int) -> SequenceModel:
    match spec:
        case TransformerSpec():
            return Transformer(spec, n_items)
        case GruSpec():
            return Gru(spec, n_items)
