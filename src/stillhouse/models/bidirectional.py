"""A transformer that looks both ways and fills gaps (BERT4Rec-style)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillhouse.models.block import Block
from stillhouse.models.dropout import Dropout
from stillhouse.models.protocol import EMBEDDING_STD, SequenceModel, prefixes
from stillhouse.params.model import BidirectionalSpec

__all__ = ["Bidirectional"]

#: Places (rows × events) that are read at once when every position gets a row of its own.
_PLACES = 1 << 15


class Bidirectional(SequenceModel):
    """Self-attention over a whole row in which some events are hidden, with tied item weights.

    Positions are counted from the end of the row, so that what comes next always stands at
    position 0 and the last event at 1, however long the history is.

    In training it names hidden events from those before and behind them (a cloze). To
    say what comes next it is given the events so far and one hidden event after them;
    so it never sees the future of a position, and each position costs a row of its own:
    its blocks see the whole row, and nothing that they find for one prefix holds for the next.

    Source: F. Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional
    Encoder Representations from Transformer", CIKM 2019; trained here with full
    cross-entropy at the hidden events, as A. Petrov, C. Macdonald, "gSASRec", RecSys
    2023, advise against sampled negatives. A share of the rows is cut at a random
    event, which alone is hidden: the paper hides the last event of some rows, so that
    the model meets the task that it will be set; a random cut sets it at any length.
    """

    def __init__(self, spec: BidirectionalSpec, n_items: int) -> None:
        """Build the model that ``spec`` describes over ``n_items`` items."""
        super().__init__(n_items, spec.width, spec.length)
        self.mask_share, self.last_share = spec.mask_share, spec.last_share
        self.hidden_event = nn.Parameter(torch.empty(spec.width))
        self.positions = nn.Parameter(torch.empty(spec.length + 1, spec.width))
        nn.init.normal_(self.hidden_event, std=EMBEDDING_STD)
        nn.init.normal_(self.positions, std=EMBEDDING_STD)
        self.dropout = Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec.width, spec.heads, spec.dropout) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.width)

    def hidden(self, histories: Tensor) -> Tensor:
        """Return what each event's prefix says of the event after it, float [B, L, width]; 0 at padded places."""
        real = (histories != 0).flatten().nonzero().squeeze(1)
        states = self.position_hidden(histories)
        nothing = states.new_zeros((histories.numel(), self.width))
        return nothing.index_copy(0, real, states).view(*histories.shape, self.width)

    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next after each whole history; ``users`` changes nothing."""
        return self.scores(self._next(histories))

    def position_hidden(self, histories: Tensor) -> Tensor:
        """Return the state of a hidden event behind each of the N prefixes, float [N, width]."""
        rows, steps = (histories != 0).nonzero(as_tuple=True)
        # Prefixes of one length share a batch, which spares padding.
        order = steps.argsort(stable=True)
        size = max(1, _PLACES // (histories.shape[1] + 1))
        parts = [prefixes(histories, None, rows[some], steps[some])[0] for some in torch.split(order, size)]
        states = torch.cat([self._next(part) for part in parts])
        return states.index_select(0, order.argsort())

    def training_states(self, histories: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the events that are hidden in this step, and whose targets they are.

        Position t of a row is there to name event t + 1: it is chosen where that event is hidden.
        """
        counts = (histories != 0).sum(dim=1)
        events = nn.functional.pad(histories, (0, 1)).scatter(
            1, counts.unsqueeze(1), targets[counts.cumsum(0) - 1].unsqueeze(1)
        )
        places = torch.arange(events.shape[1], device=events.device)
        hidden, visible = self._gaps(places, counts.unsqueeze(1))
        rows, at = hidden.nonzero(as_tuple=True)
        states = self._read(events, hidden, visible)[rows, at]
        return states, (counts.cumsum(0) - counts)[rows] + at - 1

    def _gaps(self, places: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Draw which events are hidden and which there are at all, bool [B, L + 1] each; event 0 is never hidden."""
        drawn = torch.rand(3, len(last), len(places)).to(places.device)
        one = 1 + (drawn[0, :, :1] * last).long().clamp_max(last - 1)
        cut = drawn[1, :, :1] < self.last_share
        some = (drawn[2] < self.mask_share) & (places > 0) & (places <= last)
        hidden = torch.where(cut | ~some.any(dim=1, keepdim=True), places == one, some)
        return hidden, places <= torch.where(cut, one, last)

    def _next(self, histories: Tensor) -> Tensor:
        """Return the state of a hidden event behind each history, float [B, width]."""
        end = (histories != 0).sum(dim=1, keepdim=True)
        places = torch.arange(histories.shape[1] + 1, device=histories.device)
        states = self._read(nn.functional.pad(histories, (0, 1)), places == end, places <= end)
        return states.gather(1, end.unsqueeze(2).expand(-1, 1, self.width)).squeeze(1)

    def _read(self, events: Tensor, hidden: Tensor, visible: Tensor) -> Tensor:
        """Return the state at each place, float [B, L + 1, width]; ``visible`` holds every hidden place."""
        known = torch.where(hidden.unsqueeze(2), self.hidden_event, self.items(events))
        from_end = visible.sum(dim=1, keepdim=True) - 1 - torch.arange(events.shape[1], device=events.device)
        state = self.dropout(known * math.sqrt(self.width) + self.positions[from_end.clamp_min(0)])
        for block in self.blocks:
            state = block(state, visible)
        normed: Tensor = self.norm(state)
        return normed
