"""Students of dense targets and of a store's, and how far they end from their teacher: `store.py`'s last table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from store_night import LENGTH, Night

from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.positions import Windows, seen_pairs, spread, windows
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.models.build import build
from stillhouse.models.checkpoint import load
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.train.compute import repeatable
from stillhouse.train.optimizer import adamw, set_learning_rate
from stillhouse.train.rows import TrainingRows
from stillhouse.train.softmax import catalogue_loss

STUDENT = TransformerSpec(kind="transformer", width=16, blocks=1, heads=1, length=LENGTH, dropout=0.1)


class Taught:
    """Learns from a store alone (alpha 0), in the parts that the training loop uses."""

    def __init__(self, night: Night, store: SoftTargets, temperature: float) -> None:
        """Read ``store``."""
        self._objective = MixedObjective(store, night.events, alpha=0.0, temperature=temperature)

    def loss(self, model: Any, histories: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        states, _ = model.training_states(histories, batch.targets)
        return catalogue_loss(states, model.items.weight, self._objective.lesson(batch)).total


class Dense:
    """Learns from every score of the teacher, held in memory."""

    def __init__(self, night: Night, temperature: float) -> None:
        """Score all training positions."""
        events = night.events
        plan = windows(events.train_length, LENGTH)
        self._temperature = temperature
        self._offsets = np.zeros(events.n_users, np.int64)
        self._offsets[plan.users] = np.cumsum(plan.counts) - plan.counts - plan.first
        parts = [teacher_logs(night, plan.part(at, at + 256), temperature) for at in range(0, len(plan), 256)]
        self._logs = torch.cat(parts)

    def loss(self, model: Any, histories: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the loss of a batch, times temperature² as everywhere."""
        states, _ = model.training_states(histories, batch.targets)
        logs = self._logs[torch.from_numpy(self._offsets)[batch.users] + batch.steps]
        return divergence(logs, model.scores(states), self._temperature).mean() * self._temperature**2


def divergence(logs: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL of the student's ``scores`` from the teacher's ``logs`` (-inf: no candidate), [N]."""
    absent = torch.isneginf(logs)
    student = torch.log_softmax(scores.masked_fill(absent, -torch.inf) / temperature, dim=1)
    return (logs.exp() * (logs - student).masked_fill(absent, 0.0)).sum(dim=1)


@torch.inference_mode()
def teacher_logs(night: Night, batch: Windows, temperature: float, last: bool = False) -> torch.Tensor:
    """Log-probabilities of the teacher over the candidates at the positions of ``batch``, or the ``last`` of each."""
    model, events = load(night.folder / "teacher")[0], night.events
    inputs = torch.from_numpy(events.padded(batch.users, batch.first + batch.counts, int(batch.counts.max())))
    rows, steps = spread(batch.first, batch.counts)
    scores = model.position_scores(inputs).clone()
    users = batch.users[rows]
    seen = seen_pairs(events.items, events.offsets, users, steps)
    scores[:, 0] = -torch.inf
    scores[torch.from_numpy(seen[0]), torch.from_numpy(seen[1])] = -torch.inf
    if last:
        scores = scores[torch.from_numpy(np.cumsum(batch.counts) - 1)]
    return torch.log_softmax(scores / temperature, dim=1).clone()


def learn(night: Night, lesson: Taught | Dense, epochs: int, seed: int) -> Any:
    """Train a student for ``epochs``; the learning rate falls as a cosine to 0."""
    training = TrainingSpec(epochs=epochs, batch_size=128, learning_rate=0.01)
    with repeatable(ComputeSpec(threads=torch.get_num_threads())):
        torch.manual_seed(seed)
        model = build(STUDENT, night.words.n_items, seed=seed).train()
        rows = TrainingRows(night.events, LENGTH)
        optimizer = adamw(model, training)
        plans = [rows.plan(seed, epoch, training.batch_size) for epoch in range(epochs)]
        steps, done = sum(map(len, plans)), 0
        for batches in plans:
            for index in batches:
                histories, batch = rows.batch(index)
                optimizer.zero_grad()
                lesson.loss(model, histories, batch).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                rise, fall = min(1.0, (done + 1) / 50), 0.5 * (1.0 + np.cos(np.pi * done / steps))
                set_learning_rate(optimizer, 0.01 * rise * fall)
                optimizer.step()
                done += 1
    return model.eval()


@dataclass(frozen=True)
class Mark:
    """How a student did on the held-out positions."""

    far: float
    """Mean KL from the teacher, in nats."""
    gains: np.ndarray
    """float64 [positions]: each one's part of NDCG@10."""


class Exam:
    """Held-out positions: those that the validation and test targets are asked at."""

    def __init__(self, night: Night, temperature: float) -> None:
        """Ask the teacher."""
        events = night.events
        targets = np.concatenate([np.asarray(events.targets("valid")), np.asarray(events.targets("test"))])
        targets = targets[targets[:, 1] > 0]
        counts = np.minimum(targets[:, 1], LENGTH)
        asked = Windows(targets[:, 0], targets[:, 1] - counts, counts)
        self._temperature = temperature
        self._histories = torch.from_numpy(events.padded(asked.users, targets[:, 1], LENGTH))
        parts = [
            teacher_logs(night, asked.part(at, at + 256), temperature, last=True) for at in range(0, len(asked), 256)
        ]
        self._logs = torch.cat(parts)
        self._items = torch.from_numpy(targets[:, 2].copy())

    @torch.inference_mode()
    def mark(self, model: Any) -> Mark:
        """Return how far ``model`` is from the teacher, and what it finds."""
        scores = torch.cat([model(part) for part in self._histories.split(512)])
        far = divergence(self._logs, scores, self._temperature).mean()
        scores = scores.masked_fill(torch.isneginf(self._logs), -torch.inf)
        rank = (scores >= scores.gather(1, self._items[:, None])).sum(dim=1).float()
        gain = torch.where((rank <= 10) & (self._items > 0), 1.0 / torch.log2(rank + 1.0), 0.0)
        return Mark(float(far), gain.numpy().astype(np.float64))
