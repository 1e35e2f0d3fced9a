"""Validation ranks: the same as evaluation's, over the same users every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.errors import TrainingError
from stillhouse.evaluate.scoring import score_split
from stillhouse.models.build import build
from stillhouse.params.model import GruSpec
from stillhouse.train.validation import ValidationSet

Make = Callable[..., tuple[Path, Path]]


def _night(make_sequences: Make, *, repeat_items: bool = False, name: str = "night") -> Sequences:
    generator = np.random.default_rng(5)
    histories = [(generator.permutation(30)[: 3 + user % 12] + 1).tolist() for user in range(40)]
    return Sequences.open(make_sequences(histories, n_items=30, repeat_items=repeat_items, name=name)[1])


@pytest.mark.parametrize("repeat_items", [False, True])
@torch.no_grad()
def test_ranks_are_those_of_evaluation(make_sequences: Make, repeat_items: bool) -> None:
    events = _night(make_sequences, repeat_items=repeat_items)
    model = build(GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0), 30, seed=2).eval()
    expected = score_split(
        events,
        "valid",
        lambda histories: model(torch.from_numpy(histories)).numpy(),
        length=6,
        k=10,
        batch_size=16,
        repeat_items=repeat_items,
    )
    found = ValidationSet(events, 6).ranks(model)
    assert sorted(found.tolist()) == sorted(expected.ranks.tolist())


def test_at_most_so_many_users_are_taken_and_always_the_same(make_sequences: Make) -> None:
    events = _night(make_sequences)
    one, two, other = (ValidationSet(events, 6, users=9, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 9
    assert torch.equal(one.histories, two.histories)
    assert not torch.equal(one.histories, other.histories)


def test_a_model_that_gives_nan_misses_everything(make_sequences: Make) -> None:
    events = _night(make_sequences)
    model = build(GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0), 30).eval()
    with torch.no_grad():
        model.items.weight.fill_(torch.nan)
    assert ValidationSet(events, 6).ndcg_at_10(model) == 0.0


def test_a_split_without_targets_is_refused(make_sequences: Make) -> None:
    events = Sequences.open(make_sequences([[1, 2], [2, 1]])[1])
    with pytest.raises(TrainingError, match="valid split must hold a target, found none"):
        ValidationSet(events, 5)
