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
from stillhouse.models.gru import Gru
from stillhouse.params.model import GruSpec
from stillhouse.train import validation
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


def test_the_train_split_holds_each_users_last_trained_position(make_sequences: Make) -> None:
    events = _night(make_sequences)
    some = ValidationSet(events, 3, split="train")
    users = some._users.tolist()
    assert sorted(users) == np.flatnonzero(events.train_length >= 2).tolist()
    for row, target, user in zip(some.histories.tolist(), some.targets.tolist(), users, strict=True):
        history = events.history(user, int(events.train_length[user])).tolist()
        assert target == history[-1]
        assert [item for item in row if item] == history[-4:-1]


@torch.no_grad()
def test_a_trained_position_is_scored_without_its_user(make_sequences: Make) -> None:
    class Asked(Gru):
        def forward(self, histories: torch.Tensor, users: torch.Tensor | None = None) -> torch.Tensor:
            asked.append(users)
            return super().forward(histories)

    asked: list[torch.Tensor | None] = []
    events = _night(make_sequences)
    model = Asked(GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0), 30).eval()
    ValidationSet(events, 6).ndcg_at_10(model)
    assert asked == [None]
    ValidationSet(events, 6, split="train").ndcg_at_10(model)
    assert sorted(asked[1].tolist()) == np.flatnonzero(events.train_length >= 2).tolist()


@pytest.mark.parametrize("repeat_items", [False, True])
@torch.no_grad()
def test_candidate_scores_leave_out_what_was_seen(make_sequences: Make, repeat_items: bool) -> None:
    events = _night(make_sequences, repeat_items=repeat_items)
    model = build(GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0), 30, seed=2).eval()
    scores, targets = ValidationSet(events, 6).candidate_scores(model)
    assert len(scores) == len(targets) == len(events.valid)
    open_cells = 30 * len(events.valid) - (0 if repeat_items else int(events.valid[:, 1].sum()))
    assert int(scores.isfinite().sum()) == open_cells
    assert bool(scores.gather(1, targets.unsqueeze(1)).isfinite().all())


def test_a_large_catalogue_is_scored_a_few_rows_at_a_time(
    make_sequences: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = _night(make_sequences)
    model = build(GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0), 30, seed=2).eval()
    expected = ValidationSet(events, 6).ranks(model)
    monkeypatch.setattr(validation, "_CELLS", 31 * 7)
    held: list[int] = []

    def score(histories: torch.Tensor) -> torch.Tensor:
        held.append(len(histories))
        found: torch.Tensor = model(histories)
        return found

    assert torch.equal(ValidationSet(events, 6).ranks(score), expected)
    assert max(held) == 7
