"""Members heard together: by formula, and each for the users that it does not know."""

from __future__ import annotations

import pytest
import torch

from stillhouse.models.build import build
from stillhouse.models.cross_fitted import CrossFitted
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.folds import fold_of
from stillhouse.params.model import CrossFittedSpec, EnsembleSpec, GruSpec, ItemKnnSpec, MemberSpec, PopularitySpec

N_ITEMS = 7
GRU = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0)
HISTORIES = torch.tensor([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 1, 2]])


def ensemble(combine: str) -> Ensemble:
    spec = EnsembleSpec(kind="ensemble", combine=combine, members={name: MemberSpec(model=GRU) for name in "ba"})
    found = build(spec, N_ITEMS, seed=2).eval()
    assert isinstance(found, Ensemble)
    for member in found.members.values():
        member.items.weight.data *= 60.0  # scores that are far from equal
    return found


def by_hand(model: Ensemble, heats: list[float]) -> torch.Tensor:
    """Return the members' log-probabilities, float [members, rows, n_items]."""
    members = model.members.values()
    return torch.stack(
        [(one(HISTORIES) / heat)[:, 1:].log_softmax(1) for one, heat in zip(members, heats, strict=True)]
    )


def test_members_stand_in_the_order_of_their_names() -> None:
    assert list(ensemble("mean").members) == ["a", "b"]


@torch.no_grad()
@pytest.mark.parametrize("combine", ["mean", "weighted"])
def test_the_scores_are_a_weighted_mean_of_calibrated_log_probabilities(combine: str) -> None:
    model = ensemble(combine)
    model.calibrate(temperatures=[2.0, 0.5], weights=[0.25, 0.75], scale=1.5)
    beliefs = by_hand(model, [2.0, 0.5])
    torch.testing.assert_close(model(HISTORIES)[:, 1:], 1.5 * (0.25 * beliefs[0] + 0.75 * beliefs[1]))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ensemble", "cross_fitted"])
def test_an_item_table_holds_the_directions_in_which_items_are_told_apart(kind: str) -> None:
    """Of a cross-fitted model: those in which it tells a stranger."""
    if kind == "ensemble":
        model: Ensemble | CrossFitted = ensemble("weighted")
        model.calibrate(temperatures=[2.0, 0.5], weights=[0.25, 0.75], scale=1.5)
    else:
        model = build(CrossFittedSpec(kind="cross_fitted", folds=3, model=GRU), N_ITEMS, seed=2).eval()
    table, states = model.item_table(), [member.position_hidden(HISTORIES) for member in model.members.values()]
    assert table is not None
    found = (torch.cat(states, dim=1) @ table.T)[:, 1:]
    expected = model.position_scores(HISTORIES)[:, 1:]
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True), atol=1e-5, rtol=1e-5
    )


def test_members_without_a_table_add_nothing_to_its_own() -> None:
    knn = ItemKnnSpec(kind="item_knn", length=5, decay=0.8)
    popularity = PopularitySpec(kind="popularity", length=5)
    both = {"a": MemberSpec(model=GRU), "knn": MemberSpec(model=knn)}
    table = build(EnsembleSpec(kind="ensemble", members=both), N_ITEMS, seed=2).item_table()
    assert table is not None
    assert table.shape == (N_ITEMS + 1, GRU.width)
    none = {"knn": MemberSpec(model=knn), "popularity": MemberSpec(model=popularity)}
    assert build(EnsembleSpec(kind="ensemble", members=none), N_ITEMS, seed=2).item_table() is None


@torch.no_grad()
def test_a_member_counts_for_more_where_it_is_sure() -> None:
    model = ensemble("confidence")
    beliefs, seen = by_hand(model, [1.0, 1.0]), HISTORIES
    expected = []
    for row in range(len(HISTORIES)):
        others = torch.tensor([item - 1 for item in range(1, N_ITEMS + 1) if item not in seen[row]])
        entropies = torch.stack([torch.distributions.Categorical(logits=one[row, others]).entropy() for one in beliefs])
        shares = torch.softmax(-entropies, 0)
        assert shares[entropies.argmin()] > 0.5
        expected.append((shares[:, None] * beliefs[:, row]).sum(0))
    torch.testing.assert_close(model(HISTORIES)[:, 1:], torch.stack(expected))


@torch.no_grad()
def test_members_count_alike_where_nothing_is_left_to_be_sure_of() -> None:
    model = ensemble("confidence")
    everything = torch.tensor([[3, 1, 2, 4, 5, 6, 7]])
    said = [torch.randn(1, N_ITEMS + 1) + member.mask for member in model.members.values()]
    scores = model.together(said, everything)
    assert scores[:, 1:].isfinite().all()


@torch.no_grad()
def test_a_member_of_no_weight_changes_nothing_and_makes_no_nan() -> None:
    model = ensemble("weighted")
    model.calibrate(temperatures=[1.0, 1.0], weights=[1.0, 0.0], scale=1.0)
    torch.testing.assert_close(model(HISTORIES)[:, 1:], by_hand(model, [1.0, 1.0])[0])


@torch.no_grad()
def test_a_trained_position_is_answered_by_the_member_without_its_user() -> None:
    spec = CrossFittedSpec(kind="cross_fitted", folds=3, model=GRU)
    model = build(spec, N_ITEMS, seed=2).eval()
    assert isinstance(model, CrossFitted)
    users = torch.tensor([0, 1, 5])
    members = list(model.members.values())
    for row, fold in enumerate(fold_of(users, 3).tolist()):
        own = members[fold](HISTORIES[row : row + 1])
        torch.testing.assert_close(model(HISTORIES, users)[row : row + 1], own)
    held_out = torch.stack([one(HISTORIES)[:, 1:].log_softmax(1) for one in members]).mean(0)
    torch.testing.assert_close(model(HISTORIES)[:, 1:], held_out)
