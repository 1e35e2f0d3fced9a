"""The stage ``train_student``: a small model, on what people did and on what the teacher said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.reporting import Reporter
from stillhouse.train.night import Apprentice, read_night, train_model

__all__ = ["train_student"]


def train_student(
    *,
    vocabulary: Path,
    sequences: Path,
    soft_targets: Path,
    previous_student: Path,
    student: Path,
    resume: Path,
    params: TrainStudentParams,
    reporter: Reporter,
) -> Mapping[str, float | int | str]:
    """Distil tonight's student; the teacher itself is not run.

    Args:
        vocabulary: tonight's vocabulary.
        sequences: tonight's sequences.
        soft_targets: the store of tonight's teacher.
        previous_student: this student's checkpoint of last night to start from, or nothing.
        student: the checkpoint to make.
        resume: where a killed run left its state.
        params: architecture, training and distillation; the student's own settings stand in
            place of the common ones, as a whole section.
        reporter: hears of every epoch, hard and soft loss apart.

    Returns:
        ``start``, ``valid_ndcg_at_10``, ``best_epoch``, ``epochs``, ``loss``, ``hard_loss``
        and, where the teacher was listened to, ``soft_loss``.

    Raises:
        StoreError: the store is damaged, of other data, or not made for the temperature.
        TrainingError: training diverged, or there is nothing to train on.
        DataError: sequences and vocabulary are not of one night.
        ParamsError: there is no such device or precision.
    """
    words, events = read_night(vocabulary, sequences, params.repeat_items)
    store = SoftTargets.open(soft_targets, vocabulary=words.digest, repeat_items=params.repeat_items)
    distillation = params.student.distillation or params.distillation
    objective = MixedObjective(store, events, alpha=distillation.alpha, temperature=distillation.temperature)
    own = params.student.training is not None
    apprentice = Apprentice(
        spec=params.student.model,
        training=params.student.training or params.training,
        compute=params.compute,
        seed=params.seed,
        previous=previous_student,
        where="students: training" if own else "train_student.training",
    )
    return train_model(apprentice, words, events, objective, resume=resume, checkpoint=student, reporter=reporter)
