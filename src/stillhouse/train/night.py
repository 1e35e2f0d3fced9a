"""One model's training within a night: its start from last night's weights, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.protocol import Objective
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.warm import load_grown, why_cold
from stillhouse.params.model import ComputeSpec, ModelSpec, TrainingSpec
from stillhouse.reporting import Reporter
from stillhouse.train.job import Job, Outcome
from stillhouse.train.loop import train

__all__ = ["Apprentice", "first_model", "read_night", "train_model"]


@dataclass(frozen=True)
class Apprentice:
    """A model that is to be trained tonight, teacher or student."""

    spec: ModelSpec
    training: TrainingSpec
    compute: ComputeSpec
    seed: int
    previous: Path
    """Last night's checkpoint, or nothing."""
    where: str
    """Section of params.yaml that its training stands in."""


def read_night(vocabulary: Path, sequences: Path, repeat_items: bool) -> tuple[Vocabulary, Sequences]:
    """Return tonight's vocabulary and sequences, which belong together.

    Raises:
        DataError: they are damaged, or of two nights.
        TrainingError: they were prepared under another ``repeat_items``.
    """
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    events.require(words)
    if events.repeat_items != repeat_items:
        raise TrainingError(
            f"repeat_items must be what the sequences were prepared with, got {str(repeat_items).lower()} for "
            f"sequences of {str(events.repeat_items).lower()} (params.yaml: repeat_items): run the stage prepare again"
        )
    return words, events


def first_model(apprentice: Apprentice, words: Vocabulary, reporter: Reporter) -> tuple[SequenceModel, bool]:
    """Return the model before its first step, and whether last night's weights are in it.

    Raises:
        TrainingError: last night's checkpoint is damaged or of a vocabulary that is not the beginning of ``words``.
    """
    model = build(apprentice.spec, words.n_items, seed=apprentice.seed)
    reason = why_cold(apprentice.previous, apprentice.spec)
    if reason is not None:
        reporter.note(f"cold start: {reason}")
        return model, False
    grown, header = load_grown(apprentice.previous, words.item_ids, seed=apprentice.seed)
    # Into a model of tonight's spec: a dropout rate may have changed.
    model.load_state_dict(grown.state_dict())
    reporter.note(f"warm start from last night's weights, {words.n_items - header.n_items} new items")
    return model, True


def train_model(
    apprentice: Apprentice,
    words: Vocabulary,
    events: Sequences,
    objective: Objective,
    *,
    resume: Path,
    checkpoint: Path,
    reporter: Reporter,
) -> dict[str, float | int | str]:
    """Train ``apprentice`` and write its checkpoint.

    Returns:
        The stage's key figures: ``start`` (warm or cold), ``valid_ndcg_at_10``, ``best_epoch``,
        ``epochs`` and the last epoch's mean losses.

    Raises:
        TrainingError: as `stillhouse.train.loop.train` and `first_model`.
    """
    model, warm = first_model(apprentice, words, reporter)
    job = Job(
        objective=objective,
        sequences=events,
        training=apprentice.training,
        compute=apprentice.compute,
        seed=apprentice.seed,
        warm=warm,
        resume=resume,
        where=apprentice.where,
    )
    outcome = train(model, job, reporter)
    header = Header(apprentice.spec, words.n_items, words.digest, events.repeat_items, apprentice.seed, warm)
    save(checkpoint, model, header)
    return _figures(outcome, warm)


def _figures(outcome: Outcome, warm: bool) -> dict[str, float | int | str]:
    return {
        "start": "warm" if warm else "cold",
        "valid_ndcg_at_10": outcome.ndcg_at_10,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        **outcome.losses,
    }
