"""Models that are made of models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.models.protocol import Recommender

__all__ = ["Composite", "log_probs"]


class Composite(Recommender):
    """A model whose scores come from those of its members."""

    def __init__(self, n_items: int, length: int, members: dict[str, Recommender]) -> None:
        """Hear ``members``, by name and in their order; all score the same items."""
        super().__init__(n_items, length)
        self._names = tuple(members)
        self._members = nn.ModuleList(members.values())

    @property
    def members(self) -> dict[str, Recommender]:
        """The members by name, in their order."""
        return dict(zip(self._names, self._members, strict=True))  # type: ignore[arg-type]

    def own_state(self) -> dict[str, Tensor]:
        """Return what the model holds beside its members, by name."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("_members.")}

    def mean(self, beliefs: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
        """Return the mean of log-probabilities, float [n, n_items + 1]; column 0 is -inf.

        Args:
            beliefs: each member's, float [n, n_items + 1].
            shares: what each counts for, broadcast against its beliefs.
        """
        total = torch.zeros((), device=self.mask.device)
        for belief, share in zip(beliefs, shares, strict=True):
            # A share of 0 would make NaN of the -inf at padding.
            total = total + share * belief.masked_fill(self.mask != 0, 0.0)
        return total + self.mask


def log_probs(scores: Tensor) -> Tensor:
    """Return the log-probabilities of ``scores``, float [n, n_items + 1]; -inf at padding."""
    return torch.log_softmax(scores, dim=1)
