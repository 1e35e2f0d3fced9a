"""Items that share parts, after a training with rows of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stillhouse.data.vocabulary import item_digest
from stillhouse.distill.hard import HardObjective
from stillhouse.distill.protocol import Lesson, PositionBatch
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import ComputeSpec, GruSpec, ProductSpec, TrainingSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train import own_rows
from stillhouse.train.job import Job, Outcome
from stillhouse.train.night import Apprentice, learn
from stillhouse.train.own_rows import train_rows_first

MakeJob = Callable[..., Job]
SPEC = GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.1, items=ProductSpec(splits=4, codes=6))
OWN = SPEC.model_copy(update={"items": None})


class Killed(BaseException):
    """Stands for a kill in the middle of a step."""


class Watched(HardObjective):
    """Keeps the progress of each batch that it sees, and dies after some."""

    def __init__(self, batches: int = 1 << 30) -> None:
        super().__init__()
        self.left, self.seen = batches, list[float]()

    def lesson(self, batch: PositionBatch) -> Lesson:
        self.left -= 1
        if self.left < 0:
            raise Killed
        self.seen.append(batch.progress)
        return super().lesson(batch)


def fresh() -> SequenceModel:
    return build(SPEC, 12, seed=1)


def parts(model: SequenceModel) -> ProductItems:
    assert isinstance(model.items, ProductItems)
    return model.items


def rows_first(model: SequenceModel, job: Job, begin: Callable[[SequenceModel], None] | None = None) -> Outcome:
    return train_rows_first(model, parts(model), SPEC, begin, job.sequences, job, SilentReporter())


@pytest.fixture(name="handed")
def _handed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights that each training was given and then those it left, in turn."""
    found: list[dict[str, torch.Tensor]] = []
    whole = own_rows.train

    def watched(model: SequenceModel, job: Job, reporter: SilentReporter) -> Outcome:
        found.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        outcome = whole(model, job, reporter)
        found.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return outcome

    monkeypatch.setattr(own_rows, "train", watched)
    return found


def test_the_parts_are_those_nearest_to_the_trained_rows_and_all_else_is_taken_over(
    ring_job: MakeJob, handed: list[dict[str, torch.Tensor]]
) -> None:
    rows_first(fresh(), ring_job(own_rows=0.5))
    _, rows, begun, _ = handed
    others = [name for name in rows if not name.startswith("items.")]
    assert others
    assert all(torch.equal(rows[name], begun[name]) for name in others)
    table = parts(fresh())
    table.load_state_dict({"codes": begun["items.codes"], "centroids": begun["items.centroids"]})
    trained = rows["items.weight"]
    error = (table.weight - trained)[1:].square().mean()
    assert error < 0.3 * (trained[1:] - trained[1:].mean(dim=0)).square().mean()


def test_an_item_counts_by_what_people_took_and_not_by_what_the_job_was_given_beside(
    ring_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, seen = ring_job(own_rows=0.5, epochs=2), list[torch.Tensor]()
    monkeypatch.setattr(own_rows, "fit_codes", lambda items, table, counts: seen.append(counts))
    lengths = np.asarray(job.sequences.train_length)
    fewer = replace(job.sequences, train_length=np.where(np.arange(len(lengths)) < 30, lengths, 0).astype(np.int32))
    model = fresh()
    train_rows_first(model, parts(model), SPEC, None, fewer, job, SilentReporter())
    assert seen[0][1:].sum() == lengths[:30].sum()


def test_what_begins_a_cold_model_begins_the_one_with_rows(
    ring_job: MakeJob, handed: list[dict[str, torch.Tensor]]
) -> None:
    def begin(model: SequenceModel) -> None:
        torch.nn.init.constant_(model.items.weight, 0.25)

    rows_first(fresh(), ring_job(own_rows=0.5), begin)
    assert handed[0]["items.weight"].unique().tolist() == [0.25]


def test_the_lesson_runs_once_from_its_beginning_to_its_end(ring_job: MakeJob) -> None:
    objective = Watched()
    job = ring_job(epochs=4, own_rows=0.25, patience=9, objective=objective)
    outcome = rows_first(fresh(), job)
    steps = len(objective.seen)
    assert objective.seen == pytest.approx([step / steps for step in range(steps)])
    assert outcome.epochs == 4


@pytest.mark.parametrize("batches", [3, 7, 9, 14])
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(ring_job: MakeJob, batches: int) -> None:
    whole, broken = fresh(), fresh()
    expected = rows_first(whole, ring_job("whole", own_rows=0.5))
    job = ring_job("broken", own_rows=0.5, objective=Watched(batches))
    with pytest.raises(Killed):
        rows_first(broken, job)
    again, objective = fresh(), Watched()
    found = rows_first(again, ring_job("broken", own_rows=0.5, objective=objective))
    assert found == expected
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in again.state_dict().items())
    if batches > 8:  # of four batches an epoch: the first training was done
        assert min(objective.seen) >= 0.5


def _learn(apprentice: Apprentice, job: Job) -> tuple[SequenceModel, bool]:
    words = SimpleNamespace(n_items=12, item_ids=["", *(f"i{item}" for item in range(1, 13))], digest="0")
    model, warm, _ = learn(
        apprentice,
        words,  # type: ignore[arg-type]
        job.sequences,
        job.objective,
        resume=job.resume,
        reporter=SilentReporter(),
    )
    return model, warm


def _apprentice(spec: GruSpec, job: Job) -> Apprentice:
    return Apprentice(
        spec=spec,
        training=job.training,
        compute=ComputeSpec(device="cpu", threads=1),
        seed=1,
        previous=job.resume / "nothing",
        where="train_student.training",
    )


def test_items_with_rows_of_their_own_hear_nothing_of_it(ring_job: MakeJob) -> None:
    plain, asked = ring_job("plain"), ring_job("asked", own_rows=0.5)
    one, _ = _learn(_apprentice(OWN, plain), plain)
    other, _ = _learn(_apprentice(OWN, asked), asked)
    assert all(torch.equal(tensor, one.state_dict()[name]) for name, tensor in other.state_dict().items())


def test_a_cold_student_is_trained_with_rows_first_and_a_warm_one_keeps_its_codes(
    ring_job: MakeJob, handed: list[dict[str, torch.Tensor]]
) -> None:
    job = ring_job(own_rows=0.5)
    model, warm = _learn(_apprentice(SPEC, job), job)
    assert (warm, len(handed)) == (False, 4)
    night = job.resume.parent / "last_night"
    ids = [f"i{item}" for item in range(1, 13)]
    save(night, model, Header(SPEC, 12, item_digest(ids), True, 1, False))
    next_night = ring_job("next", own_rows=0.5)
    apprentice = _apprentice(SPEC, next_night)
    later, warm = _learn(Apprentice(**{**vars(apprentice), "previous": night}), next_night)
    assert (warm, len(handed)) == (True, 4)
    assert torch.equal(parts(later).codes, parts(model).codes)


def test_what_begins_a_model_begins_its_own_rows_and_is_not_asked_twice(ring_job: MakeJob) -> None:
    job, begun = ring_job(own_rows=0.5), list[bool]()
    begin = replace(_apprentice(SPEC, job), begin=lambda model: begun.append(isinstance(model.items, ProductItems)))
    _learn(begin, job)
    assert begun == [False]
    shared = ring_job("shared")
    _learn(replace(begin, training=shared.training), shared)
    assert begun == [False, True]


def test_of_one_epoch_there_is_nothing_to_share(ring_job: MakeJob, handed: list[dict[str, torch.Tensor]]) -> None:
    objective = Watched()
    job = ring_job(own_rows=0.5, epochs=1, objective=objective)
    _learn(_apprentice(SPEC, job), job)
    assert (len(objective.seen), handed) == (4, [])  # four batches an epoch


def test_training_spec_says_what_share_may_be() -> None:
    with pytest.raises(ValueError, match="own_rows"):
        TrainingSpec(own_rows=1.0)
