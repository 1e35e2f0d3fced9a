"""What a teacher said at the positions of a batch, as tensors that every method reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.distill.device import sent
from stillhouse.distill.seen import Seen
from stillhouse.distill.soft_targets import TargetBatch

__all__ = ["TeacherRows"]


@dataclass(frozen=True)
class TeacherRows:
    """A `TargetBatch` on the student's device, and the probabilities that follow from it.

    All probabilities are the teacher's at `temperature`, over the items that the position has not
    seen. They are worked out when they are asked for: of a part of the rows, in the processor's cache.
    """

    temperature: float
    """> 0, the one that ``tail_lse`` was made for."""
    items: Tensor
    """int64 [N, K]: its best unseen items, best first; 0 pads."""
    scores: Tensor
    """float [N, K], raw, relative to the best; -inf pads."""
    tail_lse: Tensor
    """float [N]: log-sum-exp over the unseen items beyond, at `temperature`; -inf where there are none."""
    tail_items: Tensor
    """int64 [N, S]: drawn from there; 0 where there is nothing."""
    tail_scores: Tensor
    """float [N, S], raw, as ``scores``."""
    tail_logq: Tensor
    """float [N, S]: the mean over a row of f(item) / exp(logq) estimates the sum of f over the tail; +inf where a draw
    counts nothing."""
    unseen: Tensor
    """float [N]: how many items the position has not seen."""
    hidden: Tensor | None = None
    """float [N, d]: the teacher's states, where the store holds them and a method reads them."""
    whole: bool = False
    """Whether it is known that ``items`` holds no padding; a part of rows that are whole is whole."""

    @classmethod
    def of(
        cls, batch: TargetBatch, device: torch.device, dtype: torch.dtype, n_items: int, seen: Seen | None
    ) -> TeacherRows:
        """Bring ``batch`` to ``device``.

        Args:
            batch: what the store holds of N positions.
            device: the student's.
            dtype: of its scores.
            n_items: items of the catalogue.
            seen: what the N positions have seen, on ``device``; ``None``: all items are candidates.
        """

        def real(array: NDArray[np.floating]) -> Tensor:
            return sent(torch.from_numpy(np.ascontiguousarray(array)), device, dtype)

        tail_lse = real(batch.tail_lse)
        unseen = torch.full_like(tail_lse, n_items)
        return cls(
            temperature=batch.temperature,
            items=_indices(batch.items, device),
            scores=real(batch.scores),
            tail_lse=tail_lse,
            tail_items=_indices(batch.tail_items, device),
            tail_scores=real(batch.tail_scores),
            tail_logq=real(batch.tail_logq),
            unseen=unseen if seen is None else unseen - seen.counts,
            hidden=None if batch.hidden is None else real(batch.hidden),
            whole=bool(batch.items.min(initial=1)),
        )

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> TeacherRows:
        """Return rows ``start``..``stop`` - 1."""
        cut: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                cut[field.name] = value[start:stop]
        return replace(self, **cut)

    @cached_property
    def padding(self) -> Tensor:
        """Which of ``items`` are none, bool [N, K]."""
        return self.items == 0

    @cached_property
    def tailless(self) -> Tensor:
        """Which rows have no unseen item beyond ``items``, bool [N]."""
        return torch.isneginf(self.tail_lse)

    @cached_property
    def tail_size(self) -> Tensor:
        """How many items the tail holds, float [N]."""
        return (self.unseen - (~self.padding).sum(dim=1)).clamp_min(1.0).masked_fill(self.tailless, 0.0)

    @cached_property
    def log_all(self) -> Tensor:
        """Log-sum-exp over all unseen items, float [N]; 0 where there are none."""
        return self._shares[2]

    @cached_property
    def probs(self) -> Tensor:
        """Probability of ``items``, float [N, K]; 0 at padding."""
        return self._shares[0]

    @cached_property
    def tail_prob(self) -> Tensor:
        """What is left to the tail, float [N]."""
        return self._shares[1]

    @cached_property
    def _shares(self) -> tuple[Tensor, Tensor, Tensor]:
        heads = (self.scores if self.temperature == 1.0 else self.scores / self.temperature).exp()
        tail = self.tail_lse.exp()
        total = heads.sum(dim=1) + tail
        total = total.masked_fill(total == 0, 1.0)
        return heads.div_(total.unsqueeze(1)), tail.div_(total), total.log()

    @property
    def confidence(self) -> Tensor:
        """How sure the teacher is, float [N] in [0, 1]: 1 less its entropy over that of an even choice.

        The tail is taken as even, which makes a teacher look less sure than it is. A
        position with one candidate or none is sure.
        """
        logs = self.scores.masked_fill(self.padding, 0.0) / self.temperature - self.log_all.unsqueeze(1)
        spread = self.tail_lse.masked_fill(self.tailless, 0.0) - self.log_all
        even = spread - self.tail_size.clamp_min(1.0).log()
        entropy = -(self.probs * logs).sum(dim=1) - self.tail_prob * even
        most = ((~self.padding).sum(dim=1) + self.tail_size).log().clamp_min(1e-6)
        return (1.0 - entropy / most).clamp(0.0, 1.0)


def _indices(items: NDArray[np.integer], device: torch.device) -> Tensor:
    return sent(torch.from_numpy(items.astype(np.int64, copy=False)), device)
