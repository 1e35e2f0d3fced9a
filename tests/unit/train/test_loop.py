"""The training loop: when it stops, what it keeps, and that it repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from lightning_fabric.plugins import Precision

from stillhouse.distill.hard import HardObjective
from stillhouse.distill.protocol import Lesson, PositionBatch
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train import loop
from stillhouse.train.job import Job
from stillhouse.train.loop import train
from stillhouse.train.validation import ValidationSet

MakeJob = Callable[..., Job]
SPEC = TransformerSpec(kind="transformer", width=16, blocks=1, heads=2, length=6, dropout=0.2)


class Listener(SilentReporter):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, float]] = []
        self.notes: list[str] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        assert step == len(self.epochs)
        self.epochs.append(values)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killed(BaseException):
    """Stands for a kill in the middle of a step."""


class Dying(HardObjective):
    """Dies at its n-th batch."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def lesson(self, batch: PositionBatch) -> Lesson:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().lesson(batch)


def fresh() -> SequenceModel:
    return build(SPEC, 12, seed=1)


def same(one: SequenceModel, two: SequenceModel) -> bool:
    return all(torch.equal(one.state_dict()[name], two.state_dict()[name]) for name in one.state_dict())


def test_equal_jobs_give_equal_bits(ring_job: MakeJob) -> None:
    one, two = fresh(), fresh()
    torch.manual_seed(1)
    first = train(one, ring_job("a"), SilentReporter())
    torch.manual_seed(2)
    assert train(two, ring_job("b"), SilentReporter()) == first
    assert same(one, two)
    assert not same(one, fresh())


def test_training_leaves_torchs_generator_alone(ring_job: MakeJob) -> None:
    before = torch.random.get_rng_state()
    train(fresh(), ring_job(epochs=1), SilentReporter())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_weights_are_kept_and_training_stops_when_patience_ends(ring_job: MakeJob) -> None:
    job = ring_job(epochs=500, learning_rate=0.1, patience=3)
    model, listener = fresh(), Listener()
    outcome = train(model, job, listener)
    heard = [epoch["valid_ndcg_at_10"] for epoch in listener.epochs]
    assert outcome.epochs == len(heard) == outcome.best_epoch + 3 < 500
    assert outcome.ndcg_at_10 == max(heard) == heard[outcome.best_epoch - 1]
    assert ValidationSet(job.sequences, 6).ndcg_at_10(model) == outcome.ndcg_at_10
    assert not model.training


def test_each_epoch_is_reported_with_its_parts(ring_job: MakeJob) -> None:
    listener = Listener()
    outcome = train(fresh(), ring_job(epochs=2), listener)
    assert len(listener.epochs) == 2
    assert set(listener.epochs[0]) == {"loss", "hard_loss", "valid_ndcg_at_10", "learning_rate", "epoch_seconds"}
    assert listener.epochs[1]["loss"] < listener.epochs[0]["loss"]
    assert outcome.losses == {name: listener.epochs[1][name] for name in ("loss", "hard_loss")}


def test_a_warm_start_trains_warm_epochs_and_may_keep_its_start(ring_job: MakeJob) -> None:
    model = fresh()
    train(model, ring_job("cold", epochs=30, patience=30), SilentReporter())
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    outcome = train(model, ring_job("warm", warm=True, warm_epochs=2, learning_rate=0.9), SilentReporter())
    assert (outcome.epochs, outcome.best_epoch) == (2, 0)
    assert all(torch.equal(weight, start[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("batches", [0, 1, 3, 4, 6, 13])
def test_a_run_that_died_at_any_batch_ends_with_the_same_bits(
    ring_job: MakeJob, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY", 0.0)
    unbroken, broken = fresh(), fresh()
    expected, listener = train(unbroken, ring_job("a"), SilentReporter()), Listener()
    with pytest.raises(Killed):
        train(fresh(), ring_job("b", objective=Dying(batches)), SilentReporter())
    assert train(broken, ring_job("b"), listener) == expected
    assert same(unbroken, broken)
    assert listener.notes == ([f"training goes on after epoch {batches // 4}, batch {batches % 4}"] if batches else [])
    assert len(listener.epochs) == expected.epochs


def test_a_run_that_died_after_its_end_gives_the_same_at_once(ring_job: MakeJob) -> None:
    one, two = fresh(), fresh()
    expected = train(one, ring_job(), SilentReporter())
    assert train(two, ring_job(objective=Dying(0)), SilentReporter()) == expected
    assert same(one, two)


def test_a_state_of_another_job_is_not_taken_up(ring_job: MakeJob) -> None:
    train(fresh(), ring_job("shared", epochs=2), SilentReporter())
    one, two = fresh(), fresh()
    train(one, ring_job("shared", epochs=3), SilentReporter())
    train(two, ring_job("own", epochs=3), SilentReporter())
    assert same(one, two)


def test_a_loss_that_is_not_finite_stops_training_in_one_line(ring_job: MakeJob) -> None:
    class Diverging(HardObjective):
        def lesson(self, batch: PositionBatch) -> Lesson:
            return super().lesson(replace(batch, weights=batch.weights * torch.nan))

    with pytest.raises(TrainingError, match=r"^the training loss must stay finite, found NaN .* epoch 1: [^\n]*$"):
        train(fresh(), ring_job(objective=Diverging()), SilentReporter())


def test_an_events_weight_reaches_the_loss(ring_job: MakeJob) -> None:
    class Weightless(HardObjective):
        def lesson(self, batch: PositionBatch) -> Lesson:
            return super().lesson(replace(batch, weights=torch.zeros_like(batch.weights)))

    assert train(fresh(), ring_job(objective=Weightless(), epochs=1), SilentReporter()).losses["loss"] == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.02},
        {"warmup_steps": 30},
        {"weight_decay": 0.5},
        {"clip_norm": 0.01},
        {"batch_size": 7},
        {"schedule": "linear"},
        {"negatives": 4},
        {"average": 2.0},
    ],
    ids=str,
)
def test_every_setting_of_training_changes_the_weights(ring_job: MakeJob, change: dict[str, float]) -> None:
    one, two = fresh(), fresh()
    train(one, ring_job("a", epochs=1), SilentReporter())
    train(two, ring_job("b", epochs=1, **change), SilentReporter())
    assert not same(one, two)


def test_the_scale_of_a_float16_loss_outlives_a_kill(ring_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[Mapping[str, float]] = []
    monkeypatch.setattr(Precision, "state_dict", lambda _: {"scale": 512.0, "_growth_tracker": 3})
    monkeypatch.setattr(Precision, "load_state_dict", lambda _, state: restored.append(state))
    with pytest.raises(Killed):
        train(fresh(), ring_job(epochs=2, objective=Dying(6)), SilentReporter())
    assert not restored
    train(fresh(), ring_job(epochs=2), SilentReporter())
    assert restored == [{"scale": 512.0, "_growth_tracker": 3}]


def test_another_precision_trains_as_well(ring_job: MakeJob) -> None:
    job = ring_job(epochs=15, patience=15)
    mixed = Job(**{**vars(job), "compute": job.compute.model_copy(update={"precision": "bf16-mixed"})})
    assert train(fresh(), mixed, SilentReporter()).ndcg_at_10 > 0.8


def test_who_asks_a_processor_for_what_it_emulates_is_told(ring_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    for precision, told in (("32-true", 0), ("bf16-mixed", 1)):
        listener, job = Listener(), ring_job(precision, epochs=1)
        train(fresh(), replace(job, compute=job.compute.model_copy(update={"precision": precision})), listener)
        assert sum("32-true is faster here" in note for note in listener.notes) == told
