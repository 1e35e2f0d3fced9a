"""One model's training within a night: its start from last night's weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.protocol import Objective
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.product_codes import assign_codes
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.warm import load_grown, why_cold
from stillhouse.params.model import ComputeSpec, GruSpec, TeacherSpec, TrainingSpec, TransformerSpec
from stillhouse.reporting import Reporter
from stillhouse.train.compute import repeatable
from stillhouse.train.job import Job, Outcome
from stillhouse.train.loop import train
from stillhouse.train.own_rows import train_rows_first

__all__ = ["Apprentice", "first_model", "learn", "train_model"]


@dataclass(frozen=True)
class Apprentice:
    """A model that is to be trained tonight, teacher or student."""

    spec: TeacherSpec
    training: TrainingSpec
    compute: ComputeSpec
    seed: int
    previous: Path
    """Last night's checkpoint, or nothing."""
    where: str
    """Section of params.yaml that its training stands in."""
    begin: Callable[[SequenceModel], None] | None = None
    """What gives a cold model more than random weights, such as rows of a teacher's table."""


def first_model(
    apprentice: Apprentice, words: Vocabulary, events: Sequences, reporter: Reporter
) -> tuple[SequenceModel, bool]:
    """Return the model before its first step, and whether last night's weights are in it.

    Args:
        apprentice: of a kind that is trained by steps.
        words: tonight's vocabulary.
        events: tonight's sequences: a new item starts by what stood next to it.
        reporter: told how it starts.

    Raises:
        TrainingError: last night's checkpoint is damaged or of a vocabulary that is not the beginning of ``words``.
    """
    model = build(apprentice.spec, words.n_items, seed=apprentice.seed)
    if not isinstance(model, SequenceModel):
        raise TypeError(f"{apprentice.spec.kind} is not trained by steps")
    reason = why_cold(apprentice.previous, apprentice.spec)
    if reason is not None:
        reporter.note(f"cold start: {reason}")
        if apprentice.begin is not None and not _rows_first(model, apprentice.training):
            with repeatable(apprentice.compute):
                apprentice.begin(model)
        return model, False
    grown, header = load_grown(apprentice.previous, words.item_ids, events, seed=apprentice.seed)
    # Into a model of tonight's spec: a dropout rate may have changed.
    model.load_state_dict(grown.state_dict())
    reporter.note(f"warm start from last night's weights, {words.n_items - header.n_items} new items")
    return model, True


def learn(
    apprentice: Apprentice,
    words: Vocabulary,
    events: Sequences,
    objective: Objective,
    *,
    resume: Path,
    reporter: Reporter,
    taught: Sequences | None = None,
) -> tuple[SequenceModel, bool, dict[str, float | int | str]]:
    """Train ``apprentice``, from last night's weights where it may.

    Args:
        apprentice: of a kind that is trained by steps.
        words: tonight's vocabulary.
        events: tonight's sequences: what a first model starts by, and what it is validated on.
        objective: what it learns.
        resume: where a killed run left its state.
        reporter: hears of every epoch.
        taught: whose training rows it learns from, such as ``events`` and copies; ``None``: ``events``.

    Returns:
        the model, whether it started warm, and its key figures: ``start`` (warm or cold),
        ``valid_ndcg_at_10``, ``best_epoch``, ``epochs`` and the last epoch's mean losses.

    Raises:
        TrainingError: as `stillhouse.train.loop.train` and `first_model`.
    """
    model, warm = first_model(apprentice, words, events, reporter)
    job = Job(
        objective=objective,
        sequences=events if taught is None else taught,
        training=apprentice.training,
        compute=apprentice.compute,
        seed=apprentice.seed,
        warm=warm,
        resume=resume,
        where=apprentice.where,
    )
    return model, warm, _figures(_trained(model, apprentice, events, job, reporter), warm)


def _trained(model: SequenceModel, apprentice: Apprentice, events: Sequences, job: Job, reporter: Reporter) -> Outcome:
    """Train ``model`` in place; one that starts cold, and whose items share parts, needs codes before."""
    spec = apprentice.spec
    if not job.warm and isinstance(model.items, ProductItems) and isinstance(spec, TransformerSpec | GruSpec):
        if _rows_first(model, job.training):
            return train_rows_first(model, model.items, spec, apprentice.begin, events, job, reporter)
        if apprentice.begin is None:
            with repeatable(apprentice.compute):
                assign_codes(model, events)
    return train(model, job, reporter)


def _rows_first(model: SequenceModel, training: TrainingSpec) -> bool:
    """Say whether a cold ``model`` is trained with rows of its own first: those begin as it else would."""
    return isinstance(model.items, ProductItems) and bool(training.own_rows) and training.epochs > 1


def train_model(
    apprentice: Apprentice,
    words: Vocabulary,
    events: Sequences,
    objective: Objective,
    *,
    resume: Path,
    checkpoint: Path,
    reporter: Reporter,
    taught: Sequences | None = None,
) -> dict[str, float | int | str]:
    """Train ``apprentice`` by `learn` and write its checkpoint.

    Returns:
        The key figures of `learn`.

    Raises:
        TrainingError: as `learn`.
    """
    model, warm, figures = learn(apprentice, words, events, objective, resume=resume, reporter=reporter, taught=taught)
    header = Header(apprentice.spec, words.n_items, words.digest, events.repeat_items, apprentice.seed, warm)
    save(checkpoint, model, header)
    return figures


def _figures(outcome: Outcome, warm: bool) -> dict[str, float | int | str]:
    return {
        "start": "warm" if warm else "cold",
        "valid_ndcg_at_10": outcome.ndcg_at_10,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        **outcome.losses,
    }
