"""The one training loop: teacher and students, any model, any objective."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stillhouse.distill.device import sent
from stillhouse.distill.protocol import Objective, Places, PositionBatch
from stillhouse.errors import TrainingError
from stillhouse.models.protocol import SequenceModel
from stillhouse.reporting import Progress, Reporter
from stillhouse.train.averaging import WeightAverage
from stillhouse.train.compute import derived_seed, emulates_bfloat16, fabric_of, repeatable
from stillhouse.train.job import Job, Outcome
from stillhouse.train.optimizer import adamw, learning_rate, set_learning_rate
from stillhouse.train.rows import Ints, TrainingRows
from stillhouse.train.softmax import catalogue_loss, sampled_loss
from stillhouse.train.state import State, load_state, named_optimizer_state, restore_optimizer, save_state
from stillhouse.train.validation import ValidationSet

if TYPE_CHECKING:
    import lightning_fabric

__all__ = ["train"]

#: Seconds of work that a kill may cost within a long epoch.
_SAVE_EVERY = 30.0
#: Steps between looks at whether the loss is still finite.
_LOOK_EVERY = 20


@dataclass
class _Place:
    """Where a training stands; with the tensors, all that the rest of it depends on."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Batches of the running epoch completed."""
    done: int = 0
    """Optimiser steps completed."""
    best: float = -1.0
    best_epoch: int = 0
    names: list[str] = field(default_factory=list)
    """Parts of the loss, in the order of the sums."""
    history: list[dict[str, float]] = field(default_factory=list)
    """What was reported of each completed epoch."""


class _Asked:
    """A yes or no that a device has been asked for."""

    def __init__(self, flag: Tensor) -> None:
        self._flag = flag.to("cpu", non_blocking=True)
        self._there = torch.cuda.Event() if flag.is_cuda else None  # type: ignore[no-untyped-call]
        if self._there is not None:
            self._there.record()

    def answer(self) -> bool:
        """Return it; a GPU that has not come as far yet is waited for."""
        if self._there is not None:
            self._there.synchronize()
        return bool(self._flag)


class _Lessons(nn.Module):
    """The loss of a batch in one forward call: the one module that Fabric sets up."""

    def __init__(
        self, model: SequenceModel, objective: Objective, dtype: torch.dtype | None, negatives: int | None
    ) -> None:
        super().__init__()
        self.model = model
        self.learnt = objective.weights
        self._objective = objective
        self._dtype = dtype
        self._negatives = negatives

    def forward(
        self, histories: Tensor, positions: Mapping[str, Tensor], progress: float, on_host: Places | None = None
    ) -> dict[str, Tensor]:
        """Return the loss and its parts at those of the N real cells of ``histories`` that the model learns from.

        Args:
            histories: int64 [B, L], right-padded with 0.
            positions: the tensors of a `PositionBatch` of those N positions. (Fabric takes no frozen class apart.)
            progress: of the same.
            on_host: users and steps of the same, which the host knows.
        """
        states, chosen = self.model.training_states(histories, positions["targets"])
        if chosen is not None:
            positions, on_host = {name: tensor.index_select(0, chosen) for name, tensor in positions.items()}, None
        lesson = self._objective.lesson(PositionBatch(**positions, progress=progress, on_host=on_host))
        wide = torch.promote_types(states.dtype, torch.float32)
        table = self.model.items.weight
        if self._negatives is None:
            found = catalogue_loss(states.to(wide), table, lesson, self.learnt, self._dtype)
        else:
            found = sampled_loss(states.to(wide), table, lesson, self._negatives, self._dtype)
        return {"loss": found.total, **found.parts}


def train(model: SequenceModel, job: Job, reporter: Reporter) -> Outcome:
    """Train ``model`` in place until NDCG@10 on the validation split stops rising; keep the best weights.

    A run that is killed at any moment and started again with an equal job and an equal
    fresh model ends with the same bits as an unbroken one (one process, CPU).

    Args:
        model: on the CPU; it ends there, in evaluation mode.
        job: what to train on and how.
        reporter: hears of every epoch.

    Raises:
        TrainingError: the loss is not finite any more, or there is nothing to train or validate on.
        ParamsError: there is no such device or precision.
    """
    with repeatable(job.compute), _own_randomness():
        outcome = _Run(model, job, reporter).to_the_end()
    model.cpu().eval()
    return outcome


class _Run:
    """One training in one process."""

    def __init__(self, model: SequenceModel, job: Job, reporter: Reporter) -> None:
        self.model, self.job, self.reporter = model, job, reporter
        self.rows = TrainingRows(job.sequences, model.length, job.training.windows)
        self.valid = ValidationSet(job.sequences, model.length, users=job.training.valid_users, seed=job.seed)
        self.fabric: lightning_fabric.Fabric = fabric_of(job.compute)
        half = torch.bfloat16 if job.compute.precision.startswith("bf16") else None
        lessons = _Lessons(model, job.objective, half, job.training.negatives)
        self.optimizer = adamw(lessons, job.training, fused=job.compute.precision != "16-mixed")
        self.module, self.fabric_optimizer = self.fabric.setup(lessons, self.optimizer)
        self.epochs = job.training.warm_epochs if job.warm else job.training.epochs
        self.batches_an_epoch = -(-len(self.rows) // job.training.batch_size)
        self.planned = self.epochs * self.batches_an_epoch
        reach = job.training.average * self.batches_an_epoch
        self.average = WeightAverage(model, reach) if reach else None
        self.place = _Place()
        self.kept = self._weights()
        self.sums = torch.zeros(0, dtype=torch.float64, device=self.fabric.device)
        self.asked: _Asked | None = None
        self.saved_at = time.monotonic()

    def to_the_end(self) -> Outcome:
        """Train from where the last run was killed, or from the start."""
        if emulates_bfloat16(self.job.compute):
            self.reporter.note(
                "this processor has no instructions for bfloat16 and emulates them: 32-true is faster here "
                "(params.yaml: compute.precision)"
            )
        self._go_on()
        with self.reporter.progress("training", self.epochs * self.batches_an_epoch) as bar:
            bar.advance(self.place.done)
            while self.place.epoch < self.epochs and not self._tired():
                self._epoch(bar)
        self.model.load_state_dict(self.kept)
        place = self.place
        losses = {name: value for name, value in place.history[-1].items() if name.endswith("loss")}
        return Outcome(place.best, place.best_epoch, place.epoch, losses)

    def _tired(self) -> bool:
        return self.place.epoch - self.place.best_epoch >= self.job.training.patience

    def _epoch(self, bar: Progress) -> None:
        began = time.monotonic()
        place = self.place
        batches = self.rows.plan(self.job.seed, place.epoch, self.job.training.batch_size)
        for index in range(place.step, len(batches)):
            self._step(index, batches[index])
            bar.advance()
            if index % _LOOK_EVERY == 0:
                self._look()
            if time.monotonic() - self.saved_at > _SAVE_EVERY:
                self._save()
        self._require(_Asked(self.sums.isfinite().all()))
        self.asked = None
        self._close_epoch(time.monotonic() - began)

    def _step(self, index: int, rows: Ints) -> None:
        place, fabric, training = self.place, self.fabric, self.job.training
        # Every step draws from a seed of its own: a resumed run needs no generator's state.
        torch.manual_seed(derived_seed(self.job.seed, place.epoch, index, 0))  # 0: of this process, the only one
        made = self.rows.batch(rows)
        histories, batch = self._on_device(made)
        self.module.train()
        begin, end = self.job.covers
        progress = begin + (end - begin) * place.done / self.planned
        parts: dict[str, Tensor] = self.module(histories, batch, progress, made[1].on_host)
        self.fabric_optimizer.zero_grad()
        fabric.backward(parts["loss"])
        fabric.clip_gradients(self.module, self.fabric_optimizer, max_norm=training.clip_norm, error_if_nonfinite=False)
        set_learning_rate(self.optimizer, learning_rate(training, place.done, self.planned))
        self.fabric_optimizer.step()
        self._add({name: value.detach() for name, value in parts.items()}, len(batch["targets"]))
        place.step, place.done = index + 1, place.done + 1
        if self.average is not None:
            self.average.update(place.done)

    def _add(self, parts: Mapping[str, Tensor], positions: int) -> None:
        if not self.place.names:
            self.place.names = sorted(parts)
            self.sums = torch.zeros(len(parts) + 1, dtype=torch.float64, device=self.fabric.device)
        self.sums[:-1] += positions * torch.stack([parts[name].double() for name in self.place.names])
        self.sums[-1] += positions

    def _close_epoch(self, seconds: float) -> None:
        place = self.place
        ndcg = self._validate()
        means = (self.sums[:-1] / self.sums[-1]).tolist()
        rate = learning_rate(self.job.training, place.done - 1, self.planned)
        report = dict(zip(place.names, means, strict=True)) | {"valid_ndcg_at_10": ndcg, "learning_rate": rate}
        self.reporter.metrics(report | {"epoch_seconds": seconds}, place.epoch)
        place.history.append(report)
        place.epoch, place.step = place.epoch + 1, 0
        self.sums.zero_()
        self._keep_if_best(ndcg)
        self._save()

    def _keep_if_best(self, ndcg: float) -> None:
        if ndcg > self.place.best:
            self.place.best, self.place.best_epoch = ndcg, self.place.epoch
            self.kept = self._weights()

    def _validate(self) -> float:
        return self.valid.ndcg_at_10(self._shown().eval())

    def _shown(self) -> SequenceModel:
        """Return the model that is validated and kept."""
        return self.model if self.average is None else self.average.model

    def _look(self) -> None:
        """Ask whether the loss is finite; of a GPU read its answer to the question before, which is there by now."""
        asked: _Asked | None = _Asked(self.sums.isfinite().all())
        if self.fabric.device.type == "cuda":
            asked, self.asked = self.asked, asked
        self._require(asked)

    def _require(self, finite: _Asked | None) -> None:
        if finite is not None and not finite.answer():
            raise TrainingError(
                f"the training loss must stay finite, found NaN or an infinity in epoch {self.place.epoch + 1}: lower "
                f"learning_rate or clip_norm, or start cold with stillhouse run --cold (params.yaml: {self.job.where})"
            )

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._shown().state_dict().items()}

    def _on_device(self, batch: tuple[Tensor, PositionBatch]) -> tuple[Tensor, dict[str, Tensor]]:
        histories, positions = batch
        device = self.fabric.device
        tensors = {name: sent(value, device) for name, value in vars(positions).items() if isinstance(value, Tensor)}
        return sent(histories, device), tensors

    @property
    def _precision(self) -> lightning_fabric.plugins.Precision:
        """Return what holds the scale of a loss in float16; other precisions hold nothing."""
        return self.fabric.strategy.precision

    def _key(self) -> dict[str, Any]:
        """Return what a state must have been made for; the directory is private, this is the second lock."""
        shapes = {name: list(tensor.shape) for name, tensor in self.model.state_dict().items()}
        return {
            "shapes": shapes,
            "training": self.job.training.model_dump(),
            "seed": self.job.seed,
            "warm": self.job.warm,
            "rows": len(self.rows),
            "targets": len(self.valid),
            "vocabulary": self.job.sequences.vocabulary,
        }

    def _save(self) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        if self.job.objective.weights is not None:
            learnt = self.job.objective.weights.state_dict()
            tensors |= {f"learnt/{name}": tensor for name, tensor in learnt.items()}
        if self.average is not None:
            tensors |= {f"mean/{name}": tensor for name, tensor in self.average.model.state_dict().items()}
        tensors |= named_optimizer_state(self.optimizer) | {"sums": self.sums}
        facts = {"place": asdict(self.place), "key": self._key(), "precision": self._precision.state_dict()}
        save_state(self.job.resume, State(tensors, facts))
        self.saved_at = time.monotonic()

    def _go_on(self) -> None:
        """Take up the state of a killed run; without one, let a warm start show what it is worth."""
        state = load_state(self.job.resume)
        if state is None or state.facts["key"] != self._key():
            if self.job.warm:
                self._keep_if_best(self._validate())
            return
        self.place = _Place(**state.facts["place"])
        if scale := state.facts.get("precision"):
            self._precision.load_state_dict(scale)
        self.model.load_state_dict(_under("model/", state.tensors))
        self.kept = {name: tensor.to(self.fabric.device) for name, tensor in _under("kept/", state.tensors).items()}
        if self.job.objective.weights is not None:
            self.job.objective.weights.load_state_dict(_under("learnt/", state.tensors))
        if self.average is not None:
            self.average.model.load_state_dict(_under("mean/", state.tensors))
        self.sums = state.tensors["sums"].to(self.fabric.device)
        restore_optimizer(self.optimizer, state.tensors)
        self.reporter.note(f"training goes on after epoch {self.place.epoch}, batch {self.place.step}")
        for epoch, report in enumerate(self.place.history):
            self.reporter.metrics(report, epoch)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
