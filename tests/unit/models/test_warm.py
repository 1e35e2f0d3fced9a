"""Warm starts: old rows stay, new rows come, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillhouse.data.files import write_none
from stillhouse.data.vocabulary import item_digest
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.warm import load_grown, why_cold
from stillhouse.params.model import GruSpec, TransformerSpec

SPEC = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0)
ITEMS = ["", "a", "b", "c"]


@pytest.fixture(name="previous")
def _previous(tmp_path: Path) -> Path:
    header = Header(SPEC, 3, item_digest(ITEMS[1:]), repeat_items=False, seed=0, warm=False)
    save(tmp_path / "previous", build(SPEC, 3, seed=9), header)
    return tmp_path / "previous"


def test_old_rows_are_kept_and_new_ones_stand_by_their_mean(previous: Path) -> None:
    old = build(SPEC, 3, seed=9).state_dict()
    model, header = load_grown(previous, [*ITEMS, "d", "e"], seed=1)
    assert (model.n_items, header.n_items) == (5, 3)
    assert torch.equal(model.items.weight[:4], old["items.weight"])
    known = old["items.weight"][1:]
    distance = (model.items.weight[4:] - known.mean(0)).abs().max()
    assert 0 < distance < known.std(0).max()
    assert not torch.equal(model.items.weight[4], model.items.weight[5])
    assert all(torch.equal(old[name], model.state_dict()[name]) for name in old if name != "items.weight")


@torch.no_grad()
def test_a_grown_model_scores_old_items_as_before(previous: Path) -> None:
    history = torch.tensor([[1, 3, 2, 0, 0]])
    model, _ = load_grown(previous, [*ITEMS, "d"])
    scores = model(history)
    assert scores.shape == (1, 5)
    torch.testing.assert_close(scores[:, :4], build(SPEC, 3, seed=9).eval()(history))


def test_the_same_items_change_nothing(previous: Path) -> None:
    model, _ = load_grown(previous, ITEMS)
    assert torch.equal(model.items.weight, build(SPEC, 3, seed=9).items.weight)


def test_equal_seeds_grow_equal_rows(previous: Path) -> None:
    one, two, other = (load_grown(previous, [*ITEMS, "d"], seed=seed)[0].items.weight[4] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("items", [["", "b", "a", "c"], ["", "a", "b"], ["", "x", "a", "b", "c"]], ids=str)
def test_items_that_do_not_begin_with_last_nights_are_refused(previous: Path, items: list[str]) -> None:
    with pytest.raises(TrainingError, match="must begin with the 3 items of last night's model"):
        load_grown(previous, items)


def test_what_forbids_a_warm_start_is_named(previous: Path, tmp_path: Path) -> None:
    write_none(tmp_path / "nothing")
    other = TransformerSpec(kind="transformer", width=8, blocks=1, heads=1, length=5, dropout=0.0)
    assert why_cold(tmp_path / "nothing", SPEC) == "there is nothing from last night"
    assert why_cold(previous, other) == "the model changed: heads None → 1, kind gru → transformer, width 4 → 8"


def test_another_dropout_rate_is_no_reason(previous: Path) -> None:
    assert why_cold(previous, SPEC.model_copy(update={"dropout": 0.5})) is None
