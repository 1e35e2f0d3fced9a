"""Calibration: what is found is where held-out items are likeliest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.models.build import build
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.fitted import Fitted
from stillhouse.params.model import EnsembleSpec, GruSpec, ItemKnnSpec, MemberSpec, PopularitySpec
from stillhouse.train.calibration import calibrate, coefficients
from stillhouse.train.validation import ValidationSet

Make = Callable[..., tuple[Path, Path]]
GRU = GruSpec(kind="gru", width=4, blocks=1, length=6, dropout=0.0)
KNN = ItemKnnSpec(kind="item_knn", length=6, folds=2, decay=0.8)


def drawn(rows: int, spread: float, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of 20 items and targets that really follow their softmax."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, 20, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def loss(scores: torch.Tensor, targets: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(scores.double(), targets))


@pytest.mark.parametrize("stretched", [0.01, 0.3, 1.0, 40.0])
def test_a_stretch_of_the_scores_is_taken_back(stretched: float) -> None:
    logits, targets = drawn(4000, 1.5)
    assert coefficients([logits * stretched], targets)[0] * stretched == pytest.approx(1.0, abs=0.05)


def test_no_other_coefficients_are_better() -> None:
    one, targets = drawn(500, 1.0)
    other = 0.5 * one + torch.randn(one.shape, generator=torch.Generator().manual_seed(2))
    found = coefficients([one, other], targets)
    best = loss(found[0] * one + found[1] * other, targets)
    for change in [(0.9, 1.0), (1.1, 1.0), (1.0, 0.8), (1.0, 1.2), (1.05, 0.95)]:
        assert loss(found[0] * change[0] * one + found[1] * change[1] * other, targets) > best


def test_scores_that_are_never_wrong_are_not_stretched_for_ever() -> None:
    scores = torch.eye(20)
    found = coefficients([scores], torch.arange(20))[0]
    assert loss(found * scores, torch.arange(20)) < 1e-4
    assert found < 100.0


def test_noise_gets_next_to_no_weight() -> None:
    logits, targets = drawn(2000, 2.0)
    found = coefficients([torch.randn(logits.shape, generator=torch.Generator().manual_seed(9)), logits], targets)
    assert found[0] < 0.1
    assert found[1] == pytest.approx(1.0, abs=0.1)


def test_scores_that_say_nothing_and_cells_that_are_no_candidates_are_borne() -> None:
    logits, targets = drawn(50, 1.0)
    assert coefficients([torch.zeros_like(logits)], targets) == [1.0]
    masked = logits.index_fill(1, torch.tensor([0]), -torch.inf)
    kept = targets != 0
    assert 0.0 < coefficients([masked[kept]], targets[kept])[0] < 10.0


@torch.no_grad()
@pytest.mark.parametrize("combine", ["mean", "weighted", "confidence"])
def test_an_ensemble_is_likelier_calibrated_than_not(make_sequences: Make, combine: str) -> None:
    events, valid = night(make_sequences)
    members = {"gru": GRU, "knn": KNN, "popular": PopularitySpec(kind="popularity", length=6)}
    spec = EnsembleSpec(
        kind="ensemble", combine=combine, members={name: MemberSpec(model=one) for name, one in members.items()}
    )
    model = build(spec, 12, seed=1).eval()
    assert isinstance(model, Ensemble)
    for part in model.modules():
        if isinstance(part, Fitted):
            part.fit(events)
    before = loss(*valid.candidate_scores(model))
    calibrate(model, valid)
    assert loss(*valid.candidate_scores(model)) < before
    assert float(model.weights.sum()) == pytest.approx(1.0)
    if combine == "weighted":  # of three members one knows the ring
        assert model.weights.argmax() == list(model.members).index("knn")


@torch.no_grad()
def test_a_fitted_model_is_likelier_scaled_than_not(make_sequences: Make) -> None:
    events, valid = night(make_sequences)
    model = build(KNN, 12).eval()
    assert isinstance(model, Fitted)
    model.fit(events)
    before = loss(*valid.candidate_scores(model))
    calibrate(model, valid)
    assert loss(*valid.candidate_scores(model)) < before - 0.1
    once = float(model.scale)
    model.scale.fill_(1.0)
    calibrate(model, valid)
    assert float(model.scale) == once


def night(make_sequences: Make) -> tuple[Sequences, ValidationSet]:
    """Return walks round a ring of 12 items and their validation split."""
    walks = [[(start + step) % 12 + 1 for step in range(5 + start % 4)] for start in range(40)]
    events = Sequences.open(make_sequences(walks, n_items=12)[1])
    return events, ValidationSet(events, 6)
