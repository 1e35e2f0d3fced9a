"""Which class a ``kind`` in params.yaml stands for."""

from __future__ import annotations

from typing import overload

import torch

from stillhouse.models.bidirectional import Bidirectional
from stillhouse.models.cross_fitted import CrossFitted
from stillhouse.models.ease import Ease
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.gru import Gru
from stillhouse.models.item_knn import ItemKnn
from stillhouse.models.popularity import Popularity
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import EMBEDDING_STD, Recommender, SequenceModel
from stillhouse.models.quantised import round_in_training
from stillhouse.models.transformer import Transformer
from stillhouse.params.model import (
    BidirectionalSpec,
    CrossFittedSpec,
    EaseSpec,
    EnsembleSpec,
    GruSpec,
    ItemKnnSpec,
    PopularitySpec,
    SequenceSpec,
    TeacherSpec,
    TransformerSpec,
)

__all__ = ["assemble", "build"]


@overload
def build(spec: SequenceSpec, n_items: int, *, seed: int = 0) -> SequenceModel: ...
@overload
def build(spec: TeacherSpec, n_items: int, *, seed: int = 0) -> Recommender: ...
def build(spec: TeacherSpec, n_items: int, *, seed: int = 0) -> Recommender:
    """Return a fresh model of ``spec`` over ``n_items`` items; what is fitted in closed form is empty yet.

    Args:
        spec: architecture and size.
        n_items: items in the vocabulary, at least 1 (padding not counted).
        seed: what the first weights are drawn from; torch's own generator is left as it was.

    >>> from stillhouse.params.model import GruSpec
    >>> model = build(GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0), n_items=3)
    >>> model(torch.tensor([[1, 2, 0, 0, 0]])).shape
    torch.Size([1, 4])
    """
    if isinstance(spec, EnsembleSpec | CrossFittedSpec):
        parts = enumerate(spec.parts.items())
        return assemble(spec, n_items, {name: build(part, n_items, seed=seed + place) for place, (name, part) in parts})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _construct(spec, n_items)
        if isinstance(spec, TransformerSpec | GruSpec) and isinstance(model, SequenceModel):
            _shrink(model, spec)
        return model


def assemble(spec: EnsembleSpec | CrossFittedSpec, n_items: int, members: dict[str, Recommender]) -> Recommender:
    """Return the model that ``spec`` makes of ``members``, which are its parts by name and in order."""
    if isinstance(spec, EnsembleSpec):
        return Ensemble(spec, n_items, members)
    return CrossFitted(spec, n_items, members)


def _construct(
    spec: TransformerSpec | GruSpec | BidirectionalSpec | ItemKnnSpec | EaseSpec | PopularitySpec, n_items: int
) -> Recommender:
    match spec:
        case TransformerSpec():
            return Transformer(spec, n_items)
        case GruSpec():
            return Gru(spec, n_items)
        case BidirectionalSpec():
            return Bidirectional(spec, n_items)
        case ItemKnnSpec():
            return ItemKnn(spec, n_items)
        case EaseSpec():
            return Ease(spec, n_items)
        case PopularitySpec():
            return Popularity(spec, n_items)


def _shrink(model: SequenceModel, spec: TransformerSpec | GruSpec) -> None:
    """Give ``model`` the item table and the weights that ``spec`` asks for, in place."""
    if spec.items is not None:
        model.items = ProductItems(model.n_items, model.width, spec.items, std=EMBEDDING_STD)
    if spec.weights == "int8":
        round_in_training(model)
