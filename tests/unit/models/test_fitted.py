"""Models in closed form: their weights are those of their formulas, and of the other folds alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import TrainingError
from stillhouse.evaluate.popularity import popularity_scores
from stillhouse.models import ease, item_knn
from stillhouse.models.build import build
from stillhouse.models.fitted import Fitted, Neighbours
from stillhouse.models.folds import fold_of
from stillhouse.params.model import EaseSpec, FittedSpec, ItemKnnSpec, PopularitySpec

Make = Callable[..., tuple[Path, Path]]
#: The last two events of each are held out.
HISTORIES = [[1, 2, 3, 9, 9], [2, 1, 9, 9], [1, 4, 2, 9, 9], [3, 9, 9], [4, 2, 1, 3, 9, 9], [5, 1, 9, 9]]
TRAINED = [history[:-2] for history in HISTORIES]
N_ITEMS = 9


def fitted(spec: FittedSpec, make_sequences: Make) -> Fitted:
    model = build(spec, N_ITEMS).eval()
    assert isinstance(model, Fitted)
    model.fit(Sequences.open(make_sequences(HISTORIES, n_items=N_ITEMS, repeat_items=True)[1]))
    return model


def table(model: Fitted, number: int) -> np.ndarray:
    """Return the kept weights of a table, float [n_items + 1, n_items + 1]."""
    assert isinstance(model, Neighbours)
    dense = torch.zeros(N_ITEMS + 1, N_ITEMS + 1)
    return dense.scatter_(1, model.neighbours[number].long(), model.weights[number]).numpy()


def users_of(number: int, folds: int) -> list[int]:
    """Return the users whose rows table ``number`` was fitted on."""
    owner = fold_of(torch.arange(len(HISTORIES)), folds).tolist()
    return [user for user in range(len(HISTORIES)) if owner[user] != number - 1]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("cells", [1 << 26, 40], ids=["at once", "in blocks"])
def test_item_knn_is_the_shrunk_cosine_of_decayed_pairs(
    make_sequences: Make, monkeypatch: pytest.MonkeyPatch, number: int, cells: int
) -> None:
    monkeypatch.setattr(item_knn, "_CELLS", cells)
    model = fitted(ItemKnnSpec(kind="item_knn", length=5, folds=2, decay=0.5, shrink=2.0), make_sequences)
    pairs, taken = np.zeros((N_ITEMS + 1, N_ITEMS + 1)), np.zeros(N_ITEMS + 1)
    for history in (TRAINED[user] for user in users_of(number, 2)):
        for place, item in enumerate(history):
            taken[item] += 1
            for distance, later in enumerate(history[place + 1 :]):
                pairs[item, later] += 0.5**distance
    np.testing.assert_allclose(table(model, number), pairs / (np.sqrt(np.outer(taken, taken)) + 2.0), atol=1e-6)


def test_where_items_are_taken_again_an_item_is_its_own_neighbour(make_sequences: Make) -> None:
    again = [[3, 3, 3, 1, 1], [3, 2, 1, 1]]
    model = build(ItemKnnSpec(kind="item_knn", length=5, folds=2, decay=0.5, shrink=2.0), N_ITEMS)
    assert isinstance(model, Neighbours)
    model.fit(Sequences.open(make_sequences(again, n_items=N_ITEMS, repeat_items=True)[1]))
    # Two pairs side by side and one with an event between them; the item was taken four times.
    assert table(model, 0)[3, 3] == pytest.approx((2 + 0.5) / (4 + 2))


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("cells", [1 << 26, 20], ids=["at once", "in blocks"])
def test_ease_is_the_closed_form(
    make_sequences: Make, monkeypatch: pytest.MonkeyPatch, number: int, cells: int
) -> None:
    monkeypatch.setattr(ease, "_CELLS", cells)
    model = fitted(EaseSpec(kind="ease", length=5, folds=2, decay=1.0, l2=3.0), make_sequences)
    users = users_of(number, 2)
    taken = np.zeros((len(users), N_ITEMS))
    for row, user in enumerate(users):
        taken[row, np.array(TRAINED[user]) - 1] = 1.0
    inverse = np.linalg.inv(taken.T @ taken + 3.0 * np.eye(N_ITEMS))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(table(model, number)[1:, 1:], expected, atol=1e-5)


def test_popularity_orders_items_as_the_baseline_does(make_sequences: Make) -> None:
    model = fitted(PopularitySpec(kind="popularity", length=5, folds=2), make_sequences)
    folder = make_sequences(HISTORIES, n_items=N_ITEMS, repeat_items=True, name="again")[0]
    expected = popularity_scores(Vocabulary.load(folder).popularity)
    found = model(torch.tensor([[1, 2]]))[0].numpy()
    assert np.argsort(-found, kind="stable").tolist() == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(
        np.expm1(found[1:]), np.bincount(list(chain(*TRAINED)), minlength=N_ITEMS + 1)[1:], atol=1e-5
    )


def test_only_the_largest_weights_are_kept(make_sequences: Make) -> None:
    whole = table(fitted(EaseSpec(kind="ease", length=5, folds=2, decay=1.0, l2=3.0), make_sequences), 0)
    model = fitted(EaseSpec(kind="ease", length=5, folds=2, decay=1.0, l2=3.0, neighbours=2), make_sequences)
    assert model.table_size == (N_ITEMS + 1) * 2
    for full, kept in zip(whole[1:], table(model, 0)[1:], strict=True):
        assert np.count_nonzero(kept) <= 2
        assert sorted(np.abs(kept))[-2:] == sorted(np.abs(full))[-2:]
        assert set(kept[kept != 0]) <= set(full)


def test_late_events_count_for_more(make_sequences: Make) -> None:
    model = fitted(ItemKnnSpec(kind="item_knn", length=5, folds=2, decay=0.5, shrink=2.0), make_sequences)
    weights, scores = table(model, 0), model(torch.tensor([[4, 1, 2, 0]]))[0].numpy()
    np.testing.assert_allclose(scores[1:], (0.25 * weights[4] + 0.5 * weights[1] + weights[2])[1:], atol=1e-6)


def test_histories_in_bounded_parts_score_as_at_once(make_sequences: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillhouse.models import fitted as module

    model = fitted(EaseSpec(kind="ease", length=5, folds=2, decay=0.9, l2=3.0), make_sequences)
    histories = torch.randint(1, N_ITEMS + 1, (7, 5), generator=torch.Generator().manual_seed(1))
    at_once = model(histories)
    monkeypatch.setattr(module, "_PRODUCTS", 1)
    assert torch.equal(model(histories), at_once)


def test_ease_refuses_a_catalogue_that_is_too_large_to_invert(
    make_sequences: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "_MOST_ITEMS", 8)
    with pytest.raises(TrainingError, match=r"^EASE .* must have at most 8 items, found 9: [^\n]*$"):
        fitted(EaseSpec(kind="ease", length=5, decay=1.0), make_sequences)


def test_ease_refuses_an_l2_that_is_too_small_to_invert(make_sequences: Make) -> None:
    _, folder = make_sequences([[1, 2, 9, 9], [2, 1, 9, 9]], n_items=N_ITEMS, repeat_items=True)  # two items as one
    model = build(EaseSpec(kind="ease", length=5, decay=1.0, l2=1e-12), N_ITEMS)
    assert isinstance(model, Fitted)
    with pytest.raises(TrainingError, match=r"^l2 of EASE must be so large [^\n]*, got 1e-12: [^\n]*$"):
        model.fit(Sequences.open(folder))


def test_folds_are_about_equal_and_a_user_stays_in_one() -> None:
    users = torch.arange(10_000)
    folds = fold_of(users, 5)
    assert torch.bincount(folds).tolist() == pytest.approx([2000] * 5, abs=100)
    assert torch.equal(fold_of(users[:10], 5), folds[:10])
    # Neighbours in the vocabulary (sign-ups of one day) are spread over folds.
    assert torch.bincount(folds[:50]).min() >= 5
