"""Several models heard together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.models.composite import Composite, log_probs
from stillhouse.models.protocol import PositionScorer, Recommender, Rows, prefixes
from stillhouse.params.model import EnsembleSpec

__all__ = ["Ensemble"]


class Ensemble(Composite):
    """Scores by a weighted mean of its members' log-probabilities.

    ``score(i) = scale * sum over members m of w_m * log p_m(i)``, where p_m is the softmax of
    the member's scores over its temperature. Temperatures, weights and scale are fitted on
    the validation split (`stillhouse.train.calibration`). By ``combine`` the weights are

    - ``mean``: the same for all members;
    - ``weighted``: those under which held-out items are likeliest;
    - ``confidence``: at each position ``exp(-H_m) / sum exp(-H)``, where H_m is the entropy of
      p_m over what the history does not hold: a member counts as the inverse of the
      number of items that it wavers between.

    Log-probabilities are averaged, not probabilities: the search for weights is then convex,
    a member that knows nothing (all items alike) changes no order, and the result is again
    a score in which a temperature means what it means for one model.

    Source: G. Hinton, "Training Products of Experts by Minimizing Contrastive Divergence",
    Neural Computation 2002; T. Heskes, "Selecting weighting factors in logarithmic opinion
    pools", NIPS 1997; K. Kwon et al., "Adaptive Knowledge Distillation Based on Entropy",
    ICASSP 2020, for weights by entropy.
    """

    temperatures: Tensor
    weights: Tensor
    scale: Tensor

    def __init__(self, spec: EnsembleSpec, n_items: int, members: dict[str, Recommender]) -> None:
        """Make the ensemble that ``spec`` describes of ``members``, the spec's parts."""
        super().__init__(n_items, spec.length, members)
        self.combine = spec.combine
        self.register_buffer("temperatures", torch.ones(len(members)))
        self.register_buffer("weights", torch.full((len(members),), 1.0 / len(members)))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the scores of what comes next after each whole history; ``users`` go on to each member."""
        return self.together([member(histories, users) for member in self.members.values()], histories)

    def position_scorer(self, histories: Tensor, users: Tensor | None = None) -> PositionScorer:
        """Let every member read the batch once; some positions are then scored by all of them."""
        scorers = [member.position_scorer(histories, users) for member in self.members.values()]
        rows, steps = (histories != 0).nonzero(as_tuple=True)

        def score(some: Rows) -> Tensor:
            events, _ = prefixes(histories, None, rows[some], steps[some])
            return self.together([one(some) for one in scorers], events)

        return PositionScorer(score)

    def item_table(self) -> Tensor | None:
        """Return the tables of the members that have one side by side, each as it counts; ``None``: none has.

        Its rows' products with the members' states side by side are, up to a constant a position and to what the
        other members say, the ensemble's scores where weights do not change from position to position.
        """
        shares = (self.scale * self.weights / self.temperatures).tolist()
        tables = [member.item_table() for member in self.members.values()]
        found = [table * share for table, share in zip(tables, shares, strict=True) if table is not None]
        return torch.cat(found, dim=1) if found else None

    def together(self, scores: Sequence[Tensor], histories: Tensor) -> Tensor:
        """Return the ensemble's scores, float [n, n_items + 1].

        Args:
            scores: each member's, float [n, n_items + 1].
            histories: int64 [n, L], what stands before each position.
        """
        beliefs = [log_probs(one / heat) for one, heat in zip(scores, self.temperatures, strict=True)]
        shares: Tensor = self.weights
        if self.combine == "confidence":
            entropies = torch.stack([_entropy(belief, histories) for belief in beliefs])
            shares = torch.softmax(-entropies, dim=0).unsqueeze(2)
        return self.mean(beliefs, list(shares)) * self.scale

    def calibrate(self, *, temperatures: Sequence[float], weights: Sequence[float], scale: float) -> None:
        """Set what was fitted on the validation split: weights at least 0, the others above it."""
        self.temperatures.copy_(torch.tensor(temperatures))
        self.weights.copy_(torch.tensor(weights))
        self.scale.fill_(scale)


def _entropy(belief: Tensor, histories: Tensor) -> Tensor:
    """Return the entropy of log-probabilities [n, n_items + 1] over items that ``histories`` [n, L] lack, [n], nats.

    A history that holds every item gives the same whatever the belief is.
    """
    left = belief.scatter(1, histories, -torch.inf)
    others = log_probs(left.masked_fill((left == -torch.inf).all(dim=1, keepdim=True), 0.0))
    return -(others.exp() * others.masked_fill(others == -torch.inf, 0.0)).sum(dim=1)
