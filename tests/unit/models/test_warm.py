"""Warm starts: old rows stay, new rows come, and what does not fit is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stillhouse.data.files import write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import item_digest
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.warm import load_grown, neighbours, why_cold
from stillhouse.params.model import BidirectionalSpec, GruSpec, PopularitySpec, ProductSpec, TransformerSpec

SPEC = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0)
ITEMS = ["", "a", "b", "c"]
MakeSequences = Callable[..., tuple[Path, Path]]


@pytest.fixture(name="previous")
def _previous(tmp_path: Path) -> Path:
    header = Header(SPEC, 3, item_digest(ITEMS[1:]), repeat_items=False, seed=0, warm=False)
    save(tmp_path / "previous", build(SPEC, 3, seed=9), header)
    return tmp_path / "previous"


def test_old_rows_are_kept_and_unknown_new_ones_stand_by_their_mean(previous: Path) -> None:
    old = build(SPEC, 3, seed=9).state_dict()
    model, header = load_grown(previous, [*ITEMS, "d", "e"], seed=1)
    assert (model.n_items, header.n_items) == (5, 3)
    assert torch.equal(model.items.weight[:4], old["items.weight"])
    known = old["items.weight"][1:]
    distance = (model.items.weight[4:] - known.mean(0)).abs().max()
    assert 0 < distance < known.std(0).max()
    assert not torch.equal(model.items.weight[4], model.items.weight[5])
    assert all(torch.equal(old[name], model.state_dict()[name]) for name in old if name != "items.weight")


def test_neighbours_are_what_stood_next_to_a_new_item_in_training_rows(make_sequences: MakeSequences) -> None:
    # The last two events of each user are held out; items above 3 are new; nothing reaches from user to user.
    histories = [[1, 4, 2, 5, 4, 3, 3], [3, 1, 5, 2, 1], [4, 1, 1], [2, 4, 2, 2]]
    _, events = make_sequences(histories, n_items=5, repeat_items=True)
    new, known = neighbours(Sequences.open(events), 3)
    assert sorted(zip(new.tolist(), known.tolist(), strict=True)) == [(4, 1), (4, 2), (4, 2), (5, 1), (5, 2)]


def test_a_new_row_is_the_mean_of_its_neighbours_with_everybodys_mean_among_them(
    previous: Path, make_sequences: MakeSequences
) -> None:
    _, events = make_sequences([[1, 4, 2, 1, 1], [3, 4, 2, 2], [3, 3]], n_items=5, repeat_items=True)
    model, _ = load_grown(previous, [*ITEMS, "d", "e"], Sequences.open(events), seed=1)
    unknown, _ = load_grown(previous, [*ITEMS, "d", "e"], seed=1)
    old = model.items.weight.detach()
    middle = old[1:4].mean(0)
    noise = unknown.items.weight[4:].detach() - middle
    # 1 before and 2 behind in the first row; 3 before in the second.
    torch.testing.assert_close(old[4], (old[1] + old[2] + old[3] + middle) / 4 + noise[0])
    torch.testing.assert_close(old[5], middle + noise[1])


def test_a_new_item_of_a_product_table_takes_the_codes_nearest_to_its_row(
    tmp_path: Path, make_sequences: MakeSequences
) -> None:
    spec = SPEC.model_copy(update={"items": ProductSpec(splits=2, codes=3)})
    before = build(spec, 3, seed=9)
    save(tmp_path / "previous", before, Header(spec, 3, item_digest(ITEMS[1:]), repeat_items=False, seed=0, warm=False))
    _, events = make_sequences([[2, 4] * 30 + [1, 1]], n_items=4, repeat_items=True)
    model, _ = load_grown(tmp_path / "previous", [*ITEMS, "d"], Sequences.open(events), seed=1)
    codes = model.items.codes
    assert torch.equal(codes[:3], before.items.codes)
    assert torch.equal(codes[3], codes[1])  # it always stood beside item 2
    build(spec, 4).load_state_dict(model.state_dict())


def test_a_model_that_rounds_in_training_grows_by_the_values_behind(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"weights": "int8"})
    before = build(spec, 3, seed=9)
    save(tmp_path / "previous", before, Header(spec, 3, item_digest(ITEMS[1:]), repeat_items=False, seed=0, warm=False))
    model, _ = load_grown(tmp_path / "previous", [*ITEMS, "d"])
    tonight = build(spec, 4)
    tonight.load_state_dict(model.state_dict())
    history = torch.tensor([[1, 3, 2, 0, 0]])
    torch.testing.assert_close(model.eval()(history)[:, :4], before.eval()(history))
    assert torch.equal(tonight.state_dict()["items.weight"][:4], before.state_dict()["items.weight"])


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
    assert why_cold(tmp_path / "ensemble" / "members" / "new", SPEC) == "there is nothing from last night"
    assert why_cold(previous, other) == (
        "the model changed: gated None → False, heads None → 1, kind gru → transformer, norm None → before, "
        "positions None → learned, width 4 → 8"
    )


def test_another_dropout_rate_is_no_reason(previous: Path) -> None:
    assert why_cold(previous, SPEC.model_copy(update={"dropout": 0.5})) is None


def test_another_precision_is_no_reason(previous: Path) -> None:
    assert why_cold(previous, SPEC.model_copy(update={"weights": "int8"})) is None


def test_another_share_of_hidden_events_is_no_reason(tmp_path: Path) -> None:
    spec = BidirectionalSpec(kind="bidirectional", width=4, blocks=1, heads=1, length=5, dropout=0.0)
    save(tmp_path / "previous", build(spec, 3), Header(spec, 3, "d", repeat_items=False, seed=0, warm=False))
    assert why_cold(tmp_path / "previous", spec.model_copy(update={"mask_share": 0.9, "last_share": 0.1})) is None


def test_what_is_in_closed_form_does_not_grow(tmp_path: Path) -> None:
    spec = PopularitySpec(kind="popularity", length=5)
    header = Header(spec, 3, item_digest(ITEMS[1:]), repeat_items=False, seed=0, warm=False)
    save(tmp_path / "previous", build(spec, 3), header)
    with pytest.raises(TrainingError, match=r"only a model that is trained by steps .* found kind popularity"):
        load_grown(tmp_path / "previous", ITEMS)
