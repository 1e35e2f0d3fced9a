"""What a teacher said at the positions of a batch, as tensors that every method reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.distill.seen import Seen
from stillhouse.distill.soft_targets import TargetBatch

__all__ = ["TeacherRows"]


@dataclass(frozen=True)
class TeacherRows:
    """A `TargetBatch` on the student's device, with the probabilities that follow from it.

    All probabilities are the teacher's at `temperature`, over the items that the position has not seen.
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
    tail_size: Tensor
    """float [N]: how many items the tail holds."""
    log_all: Tensor
    """float [N]: log-sum-exp over all unseen items; 0 where there are none."""
    probs: Tensor
    """float [N, K]: probability of ``items``; 0 at padding."""
    tail_prob: Tensor
    """float [N]: what is left to the tail."""
    hidden: Tensor | None = None
    """float [N, d]: the teacher's states, where the store holds them."""

    @classmethod
    def make(
        cls,
        temperature: float,
        *,
        items: Tensor,
        scores: Tensor,
        tail_lse: Tensor,
        tail_items: Tensor,
        tail_scores: Tensor,
        tail_logq: Tensor,
        tail_size: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> TeacherRows:
        """Return rows with what follows from the arguments; without ``tail_size`` a tail is taken for one item."""
        heads, tail = (scores / temperature).exp(), tail_lse.exp()
        total = heads.sum(dim=1) + tail
        total = total.masked_fill(total == 0, 1.0)
        none = torch.isneginf(tail_lse)
        return cls(
            temperature=temperature,
            items=items,
            scores=scores,
            tail_lse=tail_lse,
            tail_items=tail_items,
            tail_scores=tail_scores,
            tail_logq=tail_logq,
            tail_size=torch.where(none, 0.0, torch.ones_like(tail) if tail_size is None else tail_size.to(tail)),
            log_all=total.log(),
            probs=heads.div_(total.unsqueeze(1)),
            tail_prob=tail.div_(total),
            hidden=hidden,
        )

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
        items = _indices(batch.items, device)
        taken = (items != 0).sum(dim=1)
        if seen is not None:
            taken = taken + seen.counts
        hidden: NDArray[np.float32] | None = getattr(batch, "hidden", None)

        def real(array: NDArray[np.floating]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

        return cls.make(
            batch.temperature,
            items=items,
            scores=real(batch.scores),
            tail_lse=real(batch.tail_lse),
            tail_items=_indices(batch.tail_items, device),
            tail_scores=real(batch.tail_scores),
            tail_logq=real(batch.tail_logq),
            tail_size=n_items - taken,
            hidden=None if hidden is None else real(hidden),
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

    @property
    def padding(self) -> Tensor:
        """Which of ``items`` are none, bool [N, K]."""
        return self.items == 0

    @property
    def confidence(self) -> Tensor:
        """How sure the teacher is, float [N] in [0, 1]: 1 less its entropy over that of an even choice.

        The tail is taken as even, which makes a teacher look less sure than it is. A
        position with one candidate or none is sure.
        """
        logs = self.scores.masked_fill(self.padding, 0.0) / self.temperature - self.log_all.unsqueeze(1)
        spread = self.tail_lse.masked_fill(self.tail_size == 0, 0.0) - self.log_all
        even = spread - self.tail_size.clamp_min(1.0).log()
        entropy = -(self.probs * logs).sum(dim=1) - self.tail_prob * even
        most = ((~self.padding).sum(dim=1) + self.tail_size).log().clamp_min(1e-6)
        return (1.0 - entropy / most).clamp(0.0, 1.0)


def _indices(items: NDArray[np.integer], device: torch.device) -> Tensor:
    return torch.from_numpy(items.astype(np.int64, copy=False)).to(device)
