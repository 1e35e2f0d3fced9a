"""The cloze: which events are hidden, whose targets they are, and what may be seen."""

from __future__ import annotations

import pytest
import torch

from stillhouse.models import bidirectional
from stillhouse.models.bidirectional import Bidirectional
from stillhouse.models.build import build
from stillhouse.params.model import BidirectionalSpec

N_ITEMS, LENGTH = 30, 8
#: Three rows of training, and the event after each of their positions.
HISTORIES = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [11, 12, 13, 0, 0, 0, 0, 0], [21, 0, 0, 0, 0, 0, 0, 0]])
TARGETS = torch.tensor([2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 22])


def model(**change: float) -> Bidirectional:
    settings = {"kind": "bidirectional", "width": 8, "blocks": 2, "heads": 2, "length": LENGTH, "dropout": 0.0}
    found = build(BidirectionalSpec(**settings | change), N_ITEMS, seed=1)
    assert isinstance(found, Bidirectional)
    return found


class Listening(Bidirectional):
    """Keeps what it is given to read."""

    def _read(self, events: torch.Tensor, hidden: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        self.heard = events, hidden, visible
        return super()._read(events, hidden, visible)


@pytest.mark.parametrize("last_share", [0.0, 0.5, 1.0])
def test_what_is_hidden_is_what_is_to_be_named(last_share: float) -> None:
    listening = Listening(_spec(last_share), N_ITEMS)
    torch.manual_seed(3)
    for _ in range(20):
        states, chosen = listening.training_states(HISTORIES, TARGETS)
        events, hidden, visible = listening.heard
        assert torch.equal(events[hidden], TARGETS[chosen])
        assert len(states) == len(chosen) == int(hidden.sum())
        assert bool((chosen.diff() > 0).all())
        assert bool(hidden.any(dim=1).all())  # every row teaches something
        assert not hidden[:, 0].any()  # nothing stands before the first event
        assert bool((visible | ~hidden).all())


def test_a_row_that_is_cut_shows_nothing_behind_the_cut() -> None:
    listening = Listening(_spec(1.0), N_ITEMS)
    torch.manual_seed(3)
    cuts = set()
    for _ in range(60):
        listening.training_states(HISTORIES, TARGETS)
        _, hidden, visible = listening.heard
        assert hidden.sum(dim=1).tolist() == [1, 1, 1]
        assert torch.equal(visible.sum(dim=1) - 1, hidden.int().argmax(dim=1))
        cuts.add(int(hidden[0].int().argmax()))
    assert cuts == set(range(1, 9))


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_about_the_share_that_was_asked_for_is_hidden(share: float) -> None:
    rows = torch.arange(1, LENGTH + 1).expand(400, -1)
    targets = torch.arange(2, LENGTH + 2).repeat(400)
    torch.manual_seed(5)
    _, chosen = model(last_share=0.0, mask_share=share).training_states(rows, targets)
    # A row in which nothing was drawn hides one event all the same.
    expected = share * LENGTH + (1 - share) ** LENGTH
    assert len(chosen) / 400 == pytest.approx(expected, rel=0.1)


@torch.no_grad()
def test_prefixes_in_bounded_parts_are_read_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = model().eval()
    at_once = one.position_hidden(HISTORIES)
    assert at_once.shape == (12, 8)
    monkeypatch.setattr(bidirectional, "_PLACES", 20)
    torch.testing.assert_close(one.position_hidden(HISTORIES), at_once, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_hidden_event_and_not_the_item_is_read() -> None:
    """Whatever stands at a hidden place, the states are the same."""
    one = model().eval()
    hidden = torch.zeros(1, LENGTH + 1, dtype=torch.bool)
    hidden[0, 3] = True
    visible = torch.ones_like(hidden)
    events = torch.arange(1, LENGTH + 2).unsqueeze(0)
    changed = events.clone()
    changed[0, 3] = 29
    assert torch.equal(one._read(events, hidden, visible), one._read(changed, hidden, visible))


def _spec(last_share: float) -> BidirectionalSpec:
    return BidirectionalSpec(
        kind="bidirectional", width=8, blocks=1, heads=2, length=LENGTH, dropout=0.0, last_share=last_share
    )
