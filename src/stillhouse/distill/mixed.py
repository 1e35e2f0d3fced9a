"""The distillation objective: what people did, mixed with what a teacher said, by one method or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillhouse.distill.device import sent
from stillhouse.distill.hard import HardObjective, shares
from stillhouse.distill.method import Method, Said, StateMethod, WeightedMethod
from stillhouse.distill.protocol import Answer, Lesson, LossParts, PositionBatch, Wanted
from stillhouse.distill.schedules import ByConfidence, Curve, NearConfidence, nearest
from stillhouse.distill.seen import Histories, Seen, SeenBefore
from stillhouse.distill.soft import Soft
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.teacher_rows import TeacherRows
from stillhouse.distill.trust import Trust, trust

__all__ = ["Listening", "MixedObjective"]

#: Positions of a batch that an adaptive temperature looks at.
_LOOKED_AT = 256

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Listening:
    """Where and when the teacher is listened to."""

    trust: Trust = "everywhere"
    right_within: int = 10
    """For ``where_right``: how far down the teacher's list what came next may stand."""
    finetune: float = 0.0
    """Last share of the planned steps that learns from people alone, in [0, 1)."""


class MixedObjective:
    """``alpha * hard + (1 - alpha) * sum of weight * scale * method``.

    All parts are means over positions; a teacher's over those positions of the batch
    that the store holds, each counting as `Listening` says: an event's weight says how sure
    its *label* is, and a teacher has no label.
    """

    def __init__(
        self,
        store: SoftTargets,
        histories: Histories,
        *,
        alpha: float | Curve | ByConfidence,
        temperature: float | Curve | NearConfidence,
        methods: Sequence[WeightedMethod] = (),
        listening: Listening | None = None,
        candidates: Literal["unseen", "all"] = "all",
    ) -> None:
        """Mix ``methods`` (none given: `Soft` alone) with weight ``alpha`` on the hard loss.

        Args:
            store: what the teacher said.
            histories: whose positions it speaks of.
            alpha: in [0, 1].
            temperature: one of the store's; a curve takes the nearest of them at each step.
            methods: what to learn from the teacher, no two of one kind.
            listening: where and when; ``None``: everywhere and always.
            candidates: what the hard loss's softmax runs over; where items repeat, all whatever stands here.

        Raises:
            StoreError: the store was not written for a constant ``temperature``.
        """
        self._alpha = Curve.constant(alpha) if isinstance(alpha, int | float) else alpha
        self._temperature = Curve.constant(temperature) if isinstance(temperature, int | float) else temperature
        if isinstance(self._temperature, Curve) and self._temperature.flat:
            store.header.temperature_column(self._temperature.start)
        self._store, self._listening = store, listening or Listening()
        self._methods = tuple(methods) or (WeightedMethod(Soft(), 1.0),)
        self._reads_states = any(each.method.reads_states for each in self._methods)
        self._wants_draws = any(isinstance(each.method, Method) and each.method.wants_draws for each in self._methods)
        learnt = [each.method.weights for each in self._methods if isinstance(each.method, Method)]
        kept = [each for each in learnt if each is not None]
        self.weights = nn.ModuleList(kept) if kept else None
        self._before = None if store.header.repeat_items else SeenBefore(histories)
        self._total = candidates == "all" or self._before is None
        self._hard = HardObjective(histories=None if self._total else histories)

    def lesson(self, batch: PositionBatch) -> Lesson:
        """Return the batch with what the teacher said of it.

        At ``alpha`` 1 the teacher is not asked: only ``hard_loss`` is reported, or, if
        that is so for a while only, the others as 0.
        """
        alpha = self._alpha_at(batch.progress)
        if alpha == 1.0:
            lesson = self._hard.lesson(batch)
            return lesson if self._alone else _Unheard(lesson, [each.method.name for each in self._methods])
        with torch.autocast(batch.targets.device.type, enabled=False):
            return self._mixed(batch, alpha)

    def _mixed(self, batch: PositionBatch, alpha: float | ByConfidence) -> Lesson:
        places = batch.places
        ids = self._store.position_ids(*places)
        device, wide = batch.targets.device, torch.promote_types(batch.weights.dtype, torch.float32)
        seen = None if self._before is None else self._before.at(batch.users, batch.steps, places.steps)
        # A position that the store lacks borrows a row, whose items it may have seen: it says nothing of them.
        temperature = self._temperature_at(batch.progress, ids)
        stored = self._store.batch(
            np.maximum(ids, 0), temperature, hidden=self._reads_states, draws=self._wants_draws
        ).silent_at(ids < 0)
        teacher = TeacherRows.of(stored, device, wide, self._store.header.n_items, seen)
        held = sent(torch.from_numpy(ids >= 0), device)
        said = _Batch(batch, teacher, held, seen)
        if isinstance(alpha, ByConfidence):
            alpha_at: float | Tensor = torch.where(held, alpha.at(teacher), alpha.unsure)
        else:
            alpha_at = alpha
        return _MixedLesson(said, self._methods, alpha_at, self._heard(said), total=self._total)

    @property
    def _alone(self) -> bool:
        """Whether the teacher is never asked."""
        return isinstance(self._alpha, Curve) and self._alpha.flat and self._alpha.start == 1.0

    def _alpha_at(self, progress: float) -> float | ByConfidence:
        if progress >= 1.0 - self._listening.finetune:
            return 1.0
        return self._alpha.at(progress) if isinstance(self._alpha, Curve) else self._alpha

    def _temperature_at(self, progress: float, ids: Int) -> float:
        stored = self._store.header.temperatures
        if isinstance(self._temperature, NearConfidence):
            return self._temperature.choose(self._confidences(ids[ids >= 0]))
        return nearest(self._temperature.at(progress), stored)

    def _confidences(self, ids: Int) -> list[tuple[float, float]]:
        """Return (temperature, mean probability of the teacher's best item) over some of the rows ``ids``."""
        some = ids[:: max(1, len(ids) // _LOOKED_AT)]
        found = []
        for temperature in self._store.header.temperatures:
            lse = self._store.batch(some, temperature, draws=False).lse
            chances = np.exp(-lse[np.isfinite(lse)])
            found.append((temperature, float(chances.mean()) if len(chances) else 0.0))
        return found

    def _heard(self, said: _Batch) -> Tensor:
        """Return each position's share of what the teacher says, float [N], summing to 1 or all 0."""
        listening = self._listening
        weights = trust(listening.trust, said.batch, said.teacher, listening.right_within)
        return shares(weights * said.held.to(weights.dtype))


@dataclass(frozen=True)
class _Batch:
    """One batch, and what the store says of it."""

    batch: PositionBatch
    teacher: TeacherRows
    held: Tensor
    """bool [N]: the positions that the store holds."""
    seen: Seen | None


class _MixedLesson:
    def __init__(
        self, said: _Batch, methods: Sequence[WeightedMethod], alpha: float | Tensor, heard: Tensor, *, total: bool
    ) -> None:
        self._said, self._alpha, self._heard = said, alpha, heard
        self._positions = [(each, each.method) for each in methods if isinstance(each.method, Method)]
        self._states = [(each, each.method) for each in methods if isinstance(each.method, StateMethod)]
        teacher = said.teacher
        self._shares = shares(said.batch.weights)
        self._pull = alpha * self._shares
        self._owns = [method.prepare(said.batch, teacher) for _, method in self._positions]
        scales = [method.scale(teacher.temperature) for _, method in self._positions]
        self._pulls = [
            self._weight(each, scale) * heard for (each, _), scale in zip(self._positions, scales, strict=True)
        ]
        groups = [said.batch.targets.unsqueeze(1), teacher.items, teacher.tail_items]
        self._sizes = [group.shape[1] for group in groups]
        own = [method for _, method in self._positions]
        tail = any(method.wants_tail for method in own)
        top = max((method.top for method in own), default=0)
        apart = tail or top > 0 or any(method.wants_unseen for method in own)
        self.wanted = Wanted(
            items=torch.cat(groups, dim=1),
            head=teacher.items,
            head_at=1,
            tail=tail,
            seen=said.seen,
            temperatures=tuple(sorted({*((teacher.temperature,) if apart else ()), *(() if total else (1.0,))})),
            total=total,
            top=top,
        )
        self._told = not self._states

    def loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        """Return the mixed loss; each part stands unscaled beside it."""
        if not self._told:
            raise RuntimeError("a lesson's `beside` must be asked before its `loss`, found that it was not")
        with torch.autocast(answer.scores.device.type, enabled=False):
            return self._loss(answer, start, stop)

    def _loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        target, head, drawn = torch.split(answer.scores, self._sizes, dim=1)
        among = answer.log_total if self.wanted.total else answer.log_unseen[1.0]
        hard = among - target[:, 0]
        total = hard.dot(self._pull[start:stop])
        parts = {"hard_loss": hard.detach().dot(self._shares[start:stop])}
        batch, teacher = self._said.batch.part(start, stop), self._said.teacher.part(start, stop)
        nothing = answer.scores.new_empty(0)
        for (_, method), own, pull in zip(self._positions, self._owns, self._pulls, strict=True):
            top = slice(0, method.top)
            said = Said(
                batch=batch,
                teacher=teacher,
                own={name: tensor[start:stop] for name, tensor in own.items()},
                target=target[:, 0],
                head=head,
                drawn=drawn,
                hidden=answer.hidden,
                log_candidates=among,
                log_unseen=answer.log_unseen.get(teacher.temperature, nothing),
                log_tail=answer.log_tail[teacher.temperature] if self.wanted.tail else nothing,
                top_items=None if answer.top_items is None else answer.top_items[:, top],
                top_scores=None if answer.top_scores is None else answer.top_scores[:, top],
            )
            each = method.loss(said)
            total = total + each.dot(pull[start:stop])
            parts[method.name] = each.detach().dot(self._heard[start:stop])
        return LossParts(total=total, parts=parts)

    def beside(self, states: Tensor) -> LossParts | None:
        """Return what the batch's states add, with each part unscaled beside it."""
        self._told = True
        if not self._states:
            return None
        total, parts = states.new_zeros(()), {}
        with torch.autocast(states.device.type, enabled=False):
            for each, method in self._states:
                loss = method.loss(states, self._said.teacher, self._said.held)
                total = total + (self._weight(each, 1.0) * self._heard).sum() * loss
                parts[method.name] = loss.detach()
        return LossParts(total=total, parts=parts)

    def _weight(self, each: WeightedMethod, scale: float) -> float | Tensor:
        """Return what a method counts at each position."""
        return (1.0 - self._alpha) * each.weight * scale


class _Unheard:
    """A lesson from people alone, within a training that has heard the teacher: its parts are told as 0."""

    def __init__(self, lesson: Lesson, names: Sequence[str]) -> None:
        self._lesson, self._names = lesson, names
        self.wanted = lesson.wanted

    def loss(self, answer: Answer, start: int, stop: int) -> LossParts:
        """Return the hard loss."""
        found = self._lesson.loss(answer, start, stop)
        silent: Mapping[str, Tensor] = {name: torch.zeros_like(found.total).detach() for name in self._names}
        return LossParts(total=found.total, parts={**found.parts, **silent})

    def beside(self, states: Tensor) -> None:
        """Add nothing."""
