"""How good a model is on the validation split: what early stopping and the check of the teacher read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences, Split
from stillhouse.errors import TrainingError
from stillhouse.models.protocol import Recommender
from stillhouse.train.compute import derived_seed
from stillhouse.train.ranking import ndcg_at, ranks

__all__ = ["ValidationSet"]

#: Most rows scored at once.
_BATCH = 512
#: Most scores held at once (rows × items): a table of 256 MiB of float32, whatever the catalogue is. A model of several
#: queries holds three such tables.
_CELLS = 1 << 26

Ints = npt.NDArray[np.int64]


class ValidationSet:
    """Fixed targets of one split with their histories and what their users have seen."""

    def __init__(
        self,
        sequences: Sequences,
        length: int,
        *,
        users: int | None = None,
        seed: int = 0,
        split: Split | Literal["train"] = "valid",
    ) -> None:
        """Take at most ``users`` targets of ``split``, the same ones for the same ``seed``.

        The split ``train`` holds each user's last target that is trained on, which stands right
        before the validation split's: earlier ones are easier or harder for reasons of their own.

        Raises:
            TrainingError: the split holds no target.
        """
        drawn = split == "train"
        targets = _trained(sequences) if split == "train" else np.asarray(sequences.targets(split))
        if len(targets) == 0:
            least = "four" if drawn else "three"  # of which leave-one-out holds the last two back
            raise TrainingError(
                f"the {split} split must hold a target, found none: "
                f"a user needs {least} interactions or more before the time window"
            )
        if users is not None and len(targets) > users:
            chosen = np.random.default_rng(derived_seed(seed)).choice(len(targets), users, replace=False)
            targets = targets[np.sort(chosen)]
        # Rows of similar length share a batch, which spares padding; ranks do not depend on their order.
        targets = targets[np.argsort(np.minimum(targets[:, 1], length), kind="stable")]
        self.targets = torch.from_numpy(targets[:, 2].copy())
        self.counts = np.minimum(targets[:, 1], length)
        self.histories = torch.from_numpy(sequences.padded(targets[:, 0], targets[:, 1], length))
        # Who a row is of matters to a model that must not know what it was trained on.
        self._users = torch.from_numpy(targets[:, 0].copy()) if drawn else None
        self._seen = None if sequences.repeat_items else _seen(sequences, targets)
        self._rows = max(1, min(_BATCH, _CELLS // (sequences.n_items + 1)))

    def __len__(self) -> int:
        return len(self.targets)

    def ndcg_at_10(self, model: Recommender) -> float:
        """Return NDCG@10 of ``model`` (in evaluation mode) by full ranking, in [0, 1].

        Positions that were trained on are scored as the export scores them: by a
        cross-fitted model without what the position's user taught it.
        """
        if self._users is None:
            return ndcg_at(10, self.ranks(model, model.mask.device), model.n_items)
        users = self._users.to(model.mask.device)
        found = self._ranks(lambda rows, part: model(rows, users[part]), model.mask.device)
        return ndcg_at(10, found, model.n_items)

    def ranks(self, score: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Tensor:
        """Return the rank of each target, int64 [n], in an order that stays the same.

        Args:
            score: histories int64 [B, L] → scores float [B, n_items + 1].
            device: where ``score`` wants its histories.
        """
        return self._ranks(lambda histories, _: score(histories), device)

    @torch.no_grad()
    def candidate_scores(
        self, score: Callable[[Tensor], Tensor], device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Return the scores of some targets' candidates and those targets: what a calibration looks at.

        Args:
            score: as `ranks` takes it.
            device: where ``score`` wants its histories.

        Returns:
            float32 [n, n_items + 1], -inf where an item is no candidate, and int64 [n]; targets
            that are no candidates themselves are left out.
        """
        tables = []
        for part in self._parts():
            scores = score(self._inputs(part).to(device)).float()
            if (seen := self._seen_in(part, device)) is not None:
                scores[seen] = -torch.inf
            tables.append(scores)
        scores, targets = torch.cat(tables), self.targets.to(device)
        named = (scores.gather(1, targets.unsqueeze(1)) != -torch.inf).squeeze(1)
        return scores[named], targets[named]

    @torch.no_grad()
    def _ranks(self, score: Callable[[Tensor, slice], Tensor], device: torch.device | str) -> Tensor:
        found = []
        for part in self._parts():
            scores = score(self._inputs(part).to(device), part)
            found.append(ranks(scores, self.targets[part].to(device), self._seen_in(part, device)).cpu())
        return torch.cat(found)

    def _parts(self) -> list[slice]:
        return [slice(start, min(start + self._rows, len(self))) for start in range(0, len(self), self._rows)]

    def _inputs(self, part: slice) -> Tensor:
        return self.histories[part, : max(1, int(self.counts[part].max()))]

    def _seen_in(self, part: slice, device: torch.device | str) -> tuple[Tensor, Tensor] | None:
        if self._seen is None:
            return None
        bounds, items = self._seen
        sizes = torch.from_numpy(np.diff(bounds[part.start : part.stop + 1]))
        rows = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        return rows.to(device), items[bounds[part.start] : bounds[part.stop]].to(device)


def _trained(sequences: Sequences) -> Ints:
    """Return each user's last trained position as a target: (user_index, history_length, item_index), int64 [n, 3]."""
    trained = np.asarray(sequences.train_length, np.int64)
    users = np.flatnonzero(trained >= 2)
    lengths = trained[users] - 1
    items = np.asarray(sequences.items)[np.asarray(sequences.offsets)[users] + lengths]
    return np.stack([users, lengths, items.astype(np.int64)], axis=1)


def _seen(sequences: Sequences, targets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Return all items before each target, one after the other, and where each target's begin."""
    bounds = np.concatenate([[0], np.cumsum(targets[:, 1])]).astype(np.int64)
    within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], targets[:, 1])
    first = np.asarray(sequences.offsets, np.int64)[targets[:, 0]]
    items = np.asarray(sequences.items)[np.repeat(first, targets[:, 1]) + within]
    return bounds, torch.from_numpy(items.astype(np.int64))
