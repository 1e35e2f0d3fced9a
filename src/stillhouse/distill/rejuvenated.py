"""Rejuvenated cross-entropy: the teacher's probabilities where the student's own list is, and on the way there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Rejuvenated"]

#: Most of the teacher's items that lift the odds of a student's item above them.
_MOST_BELOW = 50


class Rejuvenated(Method):
    """The cross-entropy of teacher and student on two sets of items, weighed by how far the student is.

    A cross-entropy over some items bounds the student's NDCG among them only if every item that
    the student ranks above one of them is among them too. The teacher's list is not such a set; the
    student's own list is. So with Q_T the teacher's k best unseen items and Q_S the student's::

        loss = (1 - g) CE over Q_S + g CE over A ∪ (Q_T without Q_S),      g = exp(-beta * |Q_T ∩ A| / |Q_T|)

    Each CE is between softmaxes over its own set. A are k of the student's best 2 k items, drawn
    without replacement with log-odds (1 + how many items of Q_T stand at or below it in that
    list, at most 50) / ``decay``: what the student puts above the teacher's choice. As the
    student learns, Q_S holds more of Q_T and the first term takes over.

    The store knows the teacher's scores of its best items, not of every one that a student may like:
    any other counts as much as the tail does on average, ``exp(tail_lse) / tail_size``. To find the
    student's best items is most of the cost, and grows with k. Where the catalogue is sampled
    (``training.negatives``), they are the best of those that were drawn.

    Source: Z. Zhu, W. Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for
    Recommender Systems", arXiv 2509.20989 (and its published code, which this follows where
    the text leaves a choice).
    """

    name = "rejuvenated_loss"
    wants_draws = wants_unseen = wants_tail = False

    def __init__(self, k: int, *, beta: float = 5.0, decay: float = 10.0) -> None:
        """Compare sets of ``k`` items, no more than the store holds a position."""
        self._k, self._beta, self._decay = k, beta, decay
        self.top = 2 * k

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return the noise that draws A, the teacher's logits of its items, and that of any other."""
        noise = torch.rand((len(batch), self.top), device=teacher.items.device).clamp_(1e-9, 1.0 - 1e-7)
        even = teacher.tail_lse - teacher.tail_size.clamp_min(1.0).log()
        return {
            "noise": -(-noise.log()).log(),
            "logits": teacher.scores / teacher.temperature,
            "other": even.masked_fill(teacher.tailless, -torch.inf),
        }

    def loss(self, said: Said) -> Tensor:
        """Return the weighed cross-entropy at each position, float [n], without the factor temperature²."""
        if said.top_items is None or said.top_scores is None:
            raise ValueError("the student's best items must be given, found none")
        items, t = said.top_items, said.temperature
        head, padding = said.teacher.items[:, : self._k], said.teacher.padding[:, : self._k]
        places = self._places(items, said.teacher.items)
        listed = (places > 0) & (places <= self._k)
        named = torch.cat([said.own["other"].unsqueeze(1), said.own["logits"]], dim=1)
        logits = named.gather(1, places).masked_fill_(items == 0, -torch.inf)
        chosen = self._drawn(listed, items, said.own["noise"])
        taken, first = (
            self._marked(places, some & listed[:, : some.shape[1]], head.shape[1])
            for some in (chosen, listed[:, : self._k])
        )
        left = ~taken & ~first & ~padding
        at_its_list = _cross_entropy(logits[:, : self._k], said.top_scores[:, : self._k] / t)
        kept = torch.cat([chosen, left], dim=1)
        teachers = torch.cat([logits, said.own["logits"][:, : self._k]], dim=1).masked_fill(~kept, -torch.inf)
        students = torch.cat([said.top_scores, said.head[:, : self._k]], dim=1).masked_fill(~kept, -torch.inf)
        on_the_way = _cross_entropy(teachers, students / t)
        overlap = taken.sum(dim=1) / (~padding).sum(dim=1).clamp_min(1)
        far = torch.exp(-self._beta * overlap)
        return (1.0 - far) * at_its_list + far * on_the_way

    def scale(self, temperature: float) -> float:
        """Return temperature²."""
        return temperature**2

    @staticmethod
    def _places(items: Tensor, head: Tensor) -> Tensor:
        """Return where the teacher's list ``head`` holds each of ``items``, int64 [n, top] from 1; 0: nowhere."""
        ordered, order = head.sort(dim=1)
        at = torch.searchsorted(ordered, items).clamp_max_(head.shape[1] - 1)
        found = (ordered.gather(1, at) == items) & (items != 0)
        return (order.gather(1, at) + 1).masked_fill_(~found, 0)

    @staticmethod
    def _marked(places: Tensor, some: Tensor, k: int) -> Tensor:
        """Which places of the teacher's list hold one of ``some`` of the student's items, bool [n, k]."""
        found = torch.zeros((len(places), k + 1), dtype=torch.bool, device=places.device)
        return found.scatter_(1, places[:, : some.shape[1]] * some, True)[:, 1:]

    def _drawn(self, listed: Tensor, items: Tensor, noise: Tensor) -> Tensor:
        """Which of the student's items are A, bool [n, top]."""
        below = listed.flip(1).cumsum(1).flip(1).clamp_max(_MOST_BELOW)
        keys = (below + 1.0) / self._decay + noise[:, : below.shape[1]]
        keys = keys.masked_fill(items == 0, -torch.inf)
        best = keys.topk(min(self._k, keys.shape[1]), dim=1)
        chosen = torch.zeros_like(listed).scatter_(1, best.indices, True)
        return chosen & (items != 0)


def _cross_entropy(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return the cross-entropy of softmaxes over the real places of a row, float [n]; -inf on both sides is none.

    A row without two real places has nothing to compare and the loss 0.
    """
    real = ~torch.isneginf(theirs) & ~torch.isneginf(ours)
    empty = ~real.any(dim=1, keepdim=True)
    probs = theirs.masked_fill(~real, -torch.inf).masked_fill(empty, 0.0).softmax(dim=1)
    logs = ours.masked_fill(~real, -torch.inf).masked_fill(empty, 0.0).log_softmax(dim=1)
    return -(probs * logs.masked_fill(~real, 0.0)).sum(dim=1).masked_fill(empty.squeeze(1), 0.0)
