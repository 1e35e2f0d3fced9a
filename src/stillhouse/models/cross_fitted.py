"""One architecture, trained once a fold without the fold's users."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stillhouse.models.composite import Composite, log_probs
from stillhouse.models.folds import fold_of
from stillhouse.models.protocol import PositionScorer, Recommender, Rows
from stillhouse.params.model import CrossFittedSpec

__all__ = ["CrossFitted"]


class CrossFitted(Composite):
    """Answers a training position by the member that was trained without the position's user.

    A teacher that is better on what it was trained on than on what was held out tells a
    student of memory; what a member says of a user who is new to it is no better than what
    it says of anyone. A held-out history is answered by the mean of all members'
    log-probabilities, since each of them may answer it.
    """

    def __init__(self, spec: CrossFittedSpec, n_items: int, members: dict[str, Recommender]) -> None:
        """Make the model that ``spec`` describes of ``members``, the spec's parts: one a fold, in their order."""
        super().__init__(n_items, spec.length, members)

    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next, of each row's own member where ``users`` says which that is."""
        members = list(self.members.values())
        if users is None:
            return self._together([member(histories) for member in members])
        folds = fold_of(users, len(members))
        return self._routed(folds, lambda fold, mine: members[fold](histories[mine]))

    def position_scorer(self, histories: Tensor, users: Tensor | None = None) -> PositionScorer:
        """Let each member read once what it is to answer."""
        members = list(self.members.values())
        if users is None:
            readers = [member.position_scorer(histories) for member in members]
            return PositionScorer(lambda some: self._together([one(some) for one in readers]))
        folds = fold_of(users, len(members))
        own = [member.position_scorer(histories[folds == fold]) for fold, member in enumerate(members)]
        owner = folds[(histories != 0).nonzero(as_tuple=True)[0]]
        # What number a position has among those of its fold.
        number = torch.zeros_like(owner)
        for fold in range(len(members)):
            mine = (owner == fold).nonzero().squeeze(1)
            number[mine] = torch.arange(len(mine), device=mine.device)

        def score(some: Rows) -> Tensor:
            numbers = number[some]
            return self._routed(owner[some], lambda fold, mine: own[fold](numbers[mine]))

        return PositionScorer(score)

    def item_table(self) -> Tensor | None:
        """Return the members' tables side by side, each as it counts for a stranger; ``None``: they have none.

        Its rows' products with the members' states side by side are, up to a constant a position, what is said
        where nobody's own member answers.
        """
        tables = [table for member in self.members.values() if (table := member.item_table()) is not None]
        return torch.cat(tables, dim=1) / len(tables) if tables else None

    def _together(self, scores: list[Tensor]) -> Tensor:
        share = self.mask.new_tensor(1.0 / len(scores))
        return self.mean([log_probs(one) for one in scores], [share] * len(scores))

    def _routed(self, folds: Tensor, answer: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Return [n, n_items + 1], where ``answer(fold, places)`` fills the places of each fold that stands in [n]."""
        scores = torch.empty((len(folds), self.n_items + 1), device=folds.device)
        for fold in range(len(self.members)):
            mine = (folds == fold).nonzero().squeeze(1)
            if len(mine):
                scores[mine] = answer(fold, mine).to(scores.dtype)
        return scores
