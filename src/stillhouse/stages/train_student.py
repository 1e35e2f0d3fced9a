"""The stage ``train_student``: a small model, on what people did and on what the teacher said."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from stillhouse.data.sequences import Sequences
from stillhouse.data.substitution import with_copies
from stillhouse.data.tonight import read_night
from stillhouse.distill.hard import HardObjective
from stillhouse.distill.methods import alpha_of, listening_of, methods_of, temperature_of
from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.protocol import Objective
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.start import read_item_table
from stillhouse.errors import StoreError
from stillhouse.params.distillation import DistillationSpec
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.reporting import Reporter
from stillhouse.train.night import Apprentice, train_model
from stillhouse.train.start import start_from

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
        reporter: hears of every epoch, of the hard loss and of each method apart.

    Returns:
        ``start``, ``valid_ndcg_at_10``, ``best_epoch``, ``epochs``, ``loss``, ``hard_loss``
        and, where the teacher was listened to, the loss of each method, such as ``soft_loss``.

    Raises:
        StoreError: the store is damaged, of other data, or lacks what the distillation needs.
        TrainingError: training diverged, or there is nothing to train on.
        DataError: sequences and vocabulary are not of one night.
        ParamsError: there is no such device or precision.
    """
    words, events = read_night(vocabulary, sequences, params.repeat_items)
    store = SoftTargets.open(soft_targets, vocabulary=words.digest, repeat_items=params.repeat_items)
    distillation = params.student.distillation or params.distillation
    begin = None
    if distillation.start == "teacher_items":
        begin = partial(start_from, table=read_item_table(soft_targets, words.n_items, store.header.items_sha256))
    own = params.student.training is not None
    apprentice = Apprentice(
        spec=params.student.model,
        training=params.student.training or params.training,
        compute=params.compute,
        seed=params.seed,
        previous=previous_student,
        where="students: training" if own else "train_student.training",
        begin=begin,
    )
    header = store.header
    taught = events
    if not distillation.alone:  # a copy has no labels: alone there is nothing to learn from it
        _require_windows(apprentice.training.windows, header.windows)
        taught = with_copies(events, header.copies, header.substituted, header.seed)
    objective = _objective(distillation, params, apprentice.training.candidates, store, taught)
    return train_model(
        apprentice, words, events, objective, taught=taught, resume=resume, checkpoint=student, reporter=reporter
    )


def _require_windows(wanted: str, scored: str) -> None:
    """Refuse windows of which the store holds a part alone: the student would hear nothing of the others.

    Raises:
        StoreError: the student is to read other windows than the teacher was asked about.
    """
    if wanted not in ("last", scored):
        raise StoreError(
            f"a taught student's windows must be last or the soft-target store's, got {wanted} of a store of {scored} "
            "(params.yaml: export_soft_targets.windows): take last, or set it so and run a night"
        )


def _objective(
    distillation: DistillationSpec,
    params: TrainStudentParams,
    candidates: Literal["unseen", "all"],
    store: SoftTargets,
    events: Sequences,
) -> Objective:
    """Return what the student learns from: people alone, or people and the teacher."""
    if distillation.alone:
        unseen = candidates == "unseen" and not events.repeat_items
        return HardObjective(distillation.label_smoothing, events if unseen else None)
    return MixedObjective(
        store,
        events,
        alpha=alpha_of(distillation.alpha),
        temperature=temperature_of(distillation.temperature),
        methods=methods_of(distillation, store, params.student.model.state_width, params.seed),
        listening=listening_of(distillation),
        candidates=candidates,
    )
