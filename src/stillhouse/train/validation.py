"""How good a model is on the validation split: what early stopping and the check of the teacher read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences, Split
from stillhouse.errors import TrainingError
from stillhouse.models.protocol import SequenceModel
from stillhouse.train.compute import derived_seed
from stillhouse.train.ranking import ndcg_at, ranks

__all__ = ["ValidationSet"]

_BATCH = 512


class ValidationSet:
    """Fixed targets of one split with their histories and what their users have seen."""

    def __init__(
        self, sequences: Sequences, length: int, *, users: int | None = None, seed: int = 0, split: Split = "valid"
    ) -> None:
        """Take at most ``users`` targets of ``split``, the same ones for the same ``seed``.

        Raises:
            TrainingError: the split holds no target.
        """
        targets = np.asarray(sequences.targets(split))
        if len(targets) == 0:
            raise TrainingError(
                f"the {split} split must hold a target, found none: "
                "a user needs three interactions or more before the time window"
            )
        if users is not None and len(targets) > users:
            chosen = np.random.default_rng(derived_seed(seed)).choice(len(targets), users, replace=False)
            targets = targets[np.sort(chosen)]
        # Rows of similar length share a batch, which spares padding; ranks do not depend on their order.
        targets = targets[np.argsort(np.minimum(targets[:, 1], length), kind="stable")]
        self.targets = torch.from_numpy(targets[:, 2].copy())
        self.counts = np.minimum(targets[:, 1], length)
        self.histories = torch.from_numpy(sequences.padded(targets[:, 0], targets[:, 1], length))
        self._seen = None if sequences.repeat_items else _seen(sequences, targets)

    def __len__(self) -> int:
        return len(self.targets)

    def ndcg_at_10(self, model: SequenceModel) -> float:
        """Return NDCG@10 of ``model`` (in evaluation mode) by full ranking, in [0, 1]."""
        return ndcg_at(10, self.ranks(model, next(model.parameters()).device))

    @torch.no_grad()
    def ranks(self, score: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Tensor:
        """Return the rank of each target, int64 [n], in an order that stays the same.

        Args:
            score: histories int64 [B, L] → scores float [B, n_items + 1].
            device: where ``score`` wants its histories.
        """
        found = []
        for start in range(0, len(self), _BATCH):
            part = slice(start, min(start + _BATCH, len(self)))
            width = max(1, int(self.counts[part].max()))
            scores = score(self.histories[part, :width].to(device))
            found.append(ranks(scores, self.targets[part].to(device), self._seen_in(part, device)).cpu())
        return torch.cat(found)

    def _seen_in(self, part: slice, device: torch.device | str) -> tuple[Tensor, Tensor] | None:
        if self._seen is None:
            return None
        bounds, items = self._seen
        sizes = torch.from_numpy(np.diff(bounds[part.start : part.stop + 1]))
        rows = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        return rows.to(device), items[bounds[part.start] : bounds[part.stop]].to(device)


def _seen(sequences: Sequences, targets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Return all items before each target, one after the other, and where each target's begin."""
    bounds = np.concatenate([[0], np.cumsum(targets[:, 1])]).astype(np.int64)
    within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], targets[:, 1])
    first = np.asarray(sequences.offsets, np.int64)[targets[:, 0]]
    items = np.asarray(sequences.items)[np.repeat(first, targets[:, 1]) + within]
    return bounds, torch.from_numpy(items.astype(np.int64))
