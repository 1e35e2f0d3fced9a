"""The distillation objective, first form: what people did, mixed with what the teacher said."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.distill.hard import hard_loss
from stillhouse.distill.positions import seen_pairs
from stillhouse.distill.protocol import LossParts, PositionBatch
from stillhouse.distill.soft import TeacherRows, soft_loss
from stillhouse.distill.soft_targets import SoftTargets

__all__ = ["Histories", "MixedObjective"]

Int = NDArray[np.int64]


class Histories(Protocol):
    """Who took what, as `stillhouse.data.sequences.Sequences` holds it."""

    @property
    def items(self) -> NDArray[np.int32]:
        """int32 [n_events], users one after another."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [n_users + 1], where each user's events start."""


class MixedObjective:
    """``alpha * hard + (1 - alpha) * temperature**2 * soft``.

    The factor temperature² keeps the size of the soft gradient when the
    temperature changes (Source: Hinton et al., "Distilling the Knowledge in a
    Neural Network", 2015). Both parts are means over positions; the soft one
    over those positions of the batch that the store holds, each counting the
    same: an event's weight says how sure its *label* is, and a teacher has no label.
    """

    def __init__(self, store: SoftTargets, histories: Histories, *, alpha: float, temperature: float) -> None:
        """Mix with weight ``alpha`` in 0..1 on the hard loss, at one of the store's temperatures.

        Raises:
            StoreError: the store was not written for ``temperature``.
        """
        store.header.temperature_column(temperature)
        self._store, self._histories = store, histories
        self._alpha, self._temperature = alpha, temperature

    def __call__(self, scores: Tensor, batch: PositionBatch) -> LossParts:
        """Return the mixed loss; its parts are ``hard_loss`` and ``soft_loss``, both in nats and unscaled.

        At ``alpha`` 1 the soft loss is not computed and there is no such part.
        """
        scores = scores.float()
        hard = hard_loss(scores, batch.targets, batch.weights)
        if self._alpha == 1.0:
            return LossParts(total=hard, parts={"hard_loss": hard.detach()})
        soft = self._soft(scores, batch)
        total = self._alpha * hard + (1.0 - self._alpha) * self._temperature**2 * soft
        return LossParts(total=total, parts={"hard_loss": hard.detach(), "soft_loss": soft.detach()})

    def _soft(self, scores: Tensor, batch: PositionBatch) -> Tensor:
        users, steps = batch.users.cpu().numpy(), batch.steps.cpu().numpy()
        ids = self._store.position_ids(users, steps)
        held = np.flatnonzero(ids >= 0)
        if len(held) == 0:
            return scores[:, 1:].sum() * 0.0
        if len(held) < len(ids):
            scores = scores.index_select(0, torch.from_numpy(held).to(scores.device))
        rows = self._rows(ids[held], users[held], steps[held], scores.device)
        return soft_loss(scores, rows, self._temperature).mean()

    def _rows(self, ids: Int, users: Int, steps: Int, device: torch.device) -> TeacherRows:
        seen = (np.empty(0, np.int64), np.empty(0, np.int64))
        if not self._store.header.repeat_items:
            seen = seen_pairs(self._histories.items, self._histories.offsets, users, steps)
        pairs = (torch.from_numpy(seen[0]), torch.from_numpy(seen[1]))
        return TeacherRows.of(self._store.batch(ids, self._temperature), pairs, device)
