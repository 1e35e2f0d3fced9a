"""Models on three items, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.models.block import _turned
from stillhouse.models.build import build
from stillhouse.models.fitted import Fitted
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import EaseSpec, FittedSpec, ItemKnnSpec, PopularitySpec, ProductSpec, TransformerSpec

Make = Callable[..., tuple[Path, Path]]


def scores(spec: FittedSpec, histories: list[list[int]], asked: list[int], make_sequences: Make) -> list[float]:
    """Return what a model fitted on ``histories`` gives the items 1, 2, 3 after the events ``asked``."""
    held_out = [[*history, 1, 1] for history in histories]  # the last two are never fitted on
    model = build(spec, 3).eval()
    assert isinstance(model, Fitted)
    model.fit(Sequences.open(make_sequences(held_out, n_items=3, repeat_items=True)[1]))
    found: list[float] = model(torch.tensor([asked]))[0, 1:].tolist()
    return found


def test_item_knn(make_sequences: Make) -> None:
    """n = 3, 2, 2. Pairs, a neighbour counting 1, the next .5: 1 → 2: 2; 1 → 3: 1 + .5; 2 → 3: 1.

    Weights: 2 / (√6 + 1) = .5798, 1.5 / (√6 + 1) = .4348, 1 / (√4 + 1) = .3333. After (1, 2) the 1 counts half.
    """
    spec = ItemKnnSpec(kind="item_knn", length=3, folds=2, decay=0.5, shrink=1.0)
    found = scores(spec, [[1, 2], [1, 3], [1, 2, 3]], [1, 2], make_sequences)
    assert found == pytest.approx([0.0, 0.5 * 0.57980, 0.5 * 0.43485 + 0.33333], abs=1e-5)


def test_ease(make_sequences: Make) -> None:
    """X'X + 1 = [2 1 0; 1 2 0; 0 0 2], its inverse [2 -1 0; -1 2 0; 0 0 1.5] / 3: items 1 and 2 give each other .5."""
    spec = EaseSpec(kind="ease", length=3, folds=2, decay=1.0, l2=1.0)
    histories = [[1, 2], [3]]
    assert scores(spec, histories, [1], make_sequences) == pytest.approx([0.0, 0.5, 0.0], abs=1e-6)


def test_popularity(make_sequences: Make) -> None:
    """Items 1, 2, 3 were taken 3, 2, 0 times: ln 4, ln 3, ln 1, whatever the history is."""
    spec = PopularitySpec(kind="popularity", length=3, folds=2)
    found = scores(spec, [[1, 2], [1], [1, 2]], [3], make_sequences)
    assert found == pytest.approx([1.38629, 1.09861, 0.0], abs=1e-5)


def sequence_model(**more: Any) -> SequenceModel:
    spec = TransformerSpec(kind="transformer", width=4, blocks=1, heads=1, length=3, dropout=0.0, **more)
    model = build(spec, 3).eval()
    assert isinstance(model, SequenceModel)
    return model


def test_the_best_of_two_queries_scores() -> None:
    """Queries (1, 0, 0, 0) and (0, 2, 0, 0) give the items 3 and 0, 0 and 2, 1 and -2: the better of each pair."""
    model = sequence_model(queries=2)
    with torch.no_grad():
        model.items.weight[1:] = torch.tensor([[3.0, 0.0, 5.0, 5.0], [0.0, 1.0, 5.0, 5.0], [1.0, -1.0, 5.0, 5.0]])
    found = model.scores(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    assert found.tolist() == [-math.inf, 3.0, 2.0, 1.0]


def test_a_rotary_turn() -> None:
    """Of (a, b, c, d) the pair (a, c) turns by 1 a place, (b, d) by 10000^(-1/2) = .01: at place 2 by 2 and .02."""
    found = _turned(torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 3, 4))[0, 0]
    assert found[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert found[1].tolist() == pytest.approx([0.540302, 0.999950, 0.841471, 0.0099998], abs=1e-6)
    assert found[2].tolist() == pytest.approx([-0.416147, 0.999800, 0.909297, 0.0199987], abs=1e-6)


def test_two_turned_vectors_meet_by_their_distance() -> None:
    """(1, 0) at place 0 and at place 1 meet at an angle of 1, and so they do at the places 4 and 5: cos 1."""
    turned = _turned(torch.tensor([1.0, 0.0]).expand(1, 1, 6, 2))[0, 0]
    assert (turned[0] @ turned[1]).item() == pytest.approx(0.540302, abs=1e-6)
    assert (turned[4] @ turned[5]).item() == pytest.approx(0.540302, abs=1e-6)


def test_a_product_quantised_row() -> None:
    """Codes (1, 0) name the second vector of the first part, (3, 4), and the first of the second, (5, 6).

    A state (1, 0, 1, 0) then scores the items 1 + 5, 3 + 5 and 3 + 7.
    """
    items = ProductItems(3, 4, ProductSpec(splits=2, codes=2), std=1.0)
    with torch.no_grad():
        items.centroids.copy_(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]))
        items.codes.copy_(torch.tensor([[0, 0], [1, 0], [1, 1]]))
    assert items(torch.tensor([0, 2])).tolist() == [[0.0, 0.0, 0.0, 0.0], [3.0, 4.0, 5.0, 6.0]]
    model = sequence_model()
    model.items = items
    assert model.scores(torch.tensor([1.0, 0.0, 1.0, 0.0])).tolist() == [-math.inf, 6.0, 8.0, 10.0]
