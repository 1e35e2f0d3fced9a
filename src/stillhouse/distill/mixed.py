"""The distillation objective: what people did, mixed with what a teacher said, by one method or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillhouse.distill.hard import HardObjective, shares
from stillhouse.distill.positions import seen_pairs
from stillhouse.distill.protocol import Answer, Lesson, LossParts, PositionBatch, Wanted
from stillhouse.distill.soft import TeacherRows, divergence
from stillhouse.distill.soft_targets import SoftTargets

__all__ = ["Histories", "Method", "MixedObjective", "Said", "SoftMethod", "WeightedMethod"]

Int = NDArray[np.int64]


class Histories(Protocol):
    """Who took what, as `stillhouse.data.sequences.Sequences` holds it."""

    @property
    def items(self) -> NDArray[np.int32]:
        """int32 [n_events], users one after another."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [n_users + 1], where each user's events start."""


@dataclass(frozen=True)
class Said:
    """What teacher and student say of the same n positions: all that a method sees."""

    batch: PositionBatch
    """Of the n positions."""
    teacher: TeacherRows
    """Of the n positions; without what they have seen."""
    temperature: float
    """Of both sides, > 0."""
    target: Tensor
    """float [n]: the student's score of what came next."""
    head: Tensor
    """float [n, K]: its scores of ``teacher.items``; -inf pads."""
    drawn: Tensor
    """float [n, S]: its scores of ``teacher.tail_items``; -inf where there is no tail."""
    items: Tensor
    """int64 [n, M]: what the method's `Method.items` asked for."""
    scores: Tensor
    """float [n, M]: the student's scores of ``items``; -inf pads."""
    hidden: Tensor
    """float [n, width]: the student's states."""
    log_total: Tensor
    """float [n]: the student's log-sum-exp over all items at temperature 1."""
    log_unseen: Tensor
    """float [n]: over the unseen items, at ``temperature``."""
    log_tail: Tensor
    """float [n]: over the unseen items outside ``teacher.items``, at ``temperature``; -inf for none."""


class Method(Protocol):
    """One way of learning from a teacher: a file each in this package."""

    name: str
    """What its part of the loss is called in the metrics, such as ``soft_loss``."""

    @property
    def weights(self) -> nn.Module | None:
        """What the method itself learns; ``None``: nothing."""

    def items(self, batch: PositionBatch, teacher: TeacherRows) -> Tensor | None:
        """Return further items whose scores it wants, int64 [N, M] (0 pads), or ``None``."""

    def loss(self, said: Said) -> Tensor:
        """Return the loss of each position, float [n], finite even where the teacher's row is padding alone."""

    def scale(self, temperature: float) -> float:
        """Return what the loss counts beside the others: 1, or what undoes the temperature in its gradient."""


@dataclass(frozen=True)
class WeightedMethod:
    """A method and its weight among what the teacher says."""

    method: Method
    weight: float


class SoftMethod:
    """`stillhouse.distill.soft`'s divergence, times temperature²: soft labels with temperature.

    The factor keeps the size of the gradient when the temperature changes (Source:
    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
    """

    name = "soft_loss"
    weights = None

    def items(self, batch: PositionBatch, teacher: TeacherRows) -> None:
        """Want nothing beyond the head and the draws."""

    def loss(self, said: Said) -> Tensor:
        """Return KL(teacher || student) at each position, float [n], without the factor temperature²."""
        return divergence(said.head, said.drawn, said.log_tail, said.teacher, said.temperature)

    def scale(self, temperature: float) -> float:
        """Return what the loss counts in the whole: temperature²."""
        return temperature**2


class MixedObjective:
    """``alpha * hard + (1 - alpha) * sum of weight * scale * method``.

    All parts are means over positions; a teacher's over those positions of the batch
    that the store holds, each counting the same: an event's weight says how sure its
    *label* is, and a teacher has no label.
    """

    def __init__(
        self,
        store: SoftTargets,
        histories: Histories,
        *,
        alpha: float | Callable[[float], float],
        temperature: float | Callable[[float], float],
        methods: Sequence[WeightedMethod] = (),
    ) -> None:
        """Mix ``methods`` (none given: `SoftMethod` alone) with weight ``alpha`` on the hard loss.

        Args:
            store: what the teacher said.
            histories: whose positions it speaks of.
            alpha: in [0, 1], or a function from progress to it.
            temperature: one of the store's, or a function from progress to one of them.
            methods: what to learn from the teacher.

        Raises:
            StoreError: the store was not written for ``temperature``.
        """
        self._alpha = alpha if callable(alpha) else lambda _: alpha
        self._temperature = temperature if callable(temperature) else lambda _: temperature
        store.header.temperature_column(self._temperature(0.0))
        self._store, self._histories = store, histories
        self._methods = tuple(methods) or (WeightedMethod(SoftMethod(), 1.0),)
        learnt = [each.method.weights for each in self._methods if each.method.weights is not None]
        self.weights = nn.ModuleList(learnt) if learnt else None
        self._hard = HardObjective()

    def lesson(self, batch: PositionBatch) -> Lesson:
        """Return the batch with what the teacher said of it.

        At ``alpha`` 1 the teacher is not asked and only ``hard_loss`` is reported.
        """
        alpha, temperature = self._alpha(batch.progress), self._temperature(batch.progress)
        if alpha == 1.0:
            return self._hard.lesson(batch)
        users, steps = batch.users.cpu().numpy(), batch.steps.cpu().numpy()
        ids = self._store.position_ids(users, steps)
        device = batch.targets.device
        seen = (np.empty(0, np.int64), np.empty(0, np.int64))
        if not self._store.header.repeat_items:
            seen = seen_pairs(self._histories.items, self._histories.offsets, users, steps)
        pairs = (torch.from_numpy(seen[0]), torch.from_numpy(seen[1]))
        # A position that the store lacks borrows a row, and counts nothing.
        teacher = TeacherRows.of(self._store.batch(np.maximum(ids, 0), temperature), pairs, device)
        held = torch.from_numpy(ids >= 0).to(device)
        return _MixedLesson(batch, teacher, held, self._methods, alpha, temperature)


class _MixedLesson:
    def __init__(
        self,
        batch: PositionBatch,
        teacher: TeacherRows,
        held: Tensor,
        methods: Sequence[WeightedMethod],
        alpha: float,
        temperature: float,
    ) -> None:
        self._batch, self._teacher, self._methods = batch, teacher, methods
        self._alpha, self._temperature = alpha, temperature
        self._hard_shares = shares(batch.weights)
        self._soft_shares = shares(held.to(batch.weights.dtype))
        empty = teacher.items[:, :0]
        asked = [each.method.items(batch, teacher) for each in methods]
        self._asked = [empty if items is None else items for items in asked]
        groups = [batch.targets.unsqueeze(1), teacher.items, teacher.tail_items, *self._asked]
        self._sizes = [group.shape[1] for group in groups]
        self.wanted = Wanted(
            items=torch.cat(groups, dim=1),
            head=teacher.items,
            seen=(teacher.seen_rows, teacher.seen_items),
            temperatures=(temperature,),
        )

    def loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        """Return the mixed loss; each part stands unscaled beside it."""
        target, head, drawn, *asked = torch.split(answer.scores, self._sizes, dim=1)
        hard = ((answer.log_total - target[:, 0]) * self._hard_shares[start:stop]).sum()
        total = self._alpha * hard
        parts = {"hard_loss": hard.detach()}
        batch, teacher = self._batch.part(start, stop), self._teacher.part(start, stop)
        share = self._soft_shares[start:stop]
        for each, items, scores in zip(self._methods, self._asked, asked, strict=True):
            said = Said(
                batch=batch,
                teacher=teacher,
                temperature=self._temperature,
                target=target[:, 0],
                head=head,
                drawn=drawn,
                items=items[start:stop],
                scores=scores,
                hidden=answer.hidden,
                log_total=answer.log_total,
                log_unseen=answer.log_unseen[self._temperature],
                log_tail=answer.log_tail[self._temperature],
            )
            loss = (each.method.loss(said) * share).sum()
            total = total + (1.0 - self._alpha) * each.weight * each.method.scale(self._temperature) * loss
            parts[each.method.name] = loss.detach()
        return LossParts(total=total, parts=parts)
