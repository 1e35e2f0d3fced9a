"""The stage ``train_teacher``: the large model, or several, on what people did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.tonight import read_night
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import Reporter
from stillhouse.train.night import Apprentice
from stillhouse.train.teacher import train_recommender

__all__ = ["train_teacher"]


def train_teacher(
    *,
    vocabulary: Path,
    sequences: Path,
    previous_teacher: Path,
    teacher: Path,
    resume: Path,
    params: TrainTeacherParams,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Train tonight's teacher, of whatever kind, on the training rows.

    Args:
        vocabulary: tonight's vocabulary.
        sequences: tonight's sequences.
        previous_teacher: last night's checkpoint to start from, or nothing.
        teacher: the checkpoint to make.
        resume: where a killed run left its state.
        params: architecture and training.
        reporter: hears of every epoch.

    Returns:
        ``start``, ``valid_ndcg_at_10``; of a model trained by steps ``best_epoch``, ``epochs``,
        ``loss`` and ``hard_loss`` too; of one made of models the same of each under ``members``.

    Raises:
        TrainingError: training diverged, or there is nothing to train on.
        DataError: sequences and vocabulary are not of one night.
        ParamsError: there is no such device or precision.
    """
    words, events = read_night(vocabulary, sequences, params.repeat_items)
    apprentice = Apprentice(
        spec=params.model,
        training=params.training,
        compute=params.compute,
        seed=params.seed,
        previous=previous_teacher,
        where="train_teacher.training",
    )
    return train_recommender(apprentice, words, events, resume=resume, checkpoint=teacher, reporter=reporter)
