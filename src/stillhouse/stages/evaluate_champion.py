"""evaluate_champion: the same work on what serves now, and on the fixed reference, against tonight's targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.files import is_none, write_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.evaluate.ranks import write_evaluation
from stillhouse.evaluate.report import Catalogue
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.reporting import Reporter
from stillhouse.serve.student import Student
from stillhouse.stages.evaluate import measure, rank

__all__ = ["evaluate_champion"]


def evaluate_champion(
    *,
    champion: Path,
    reference: Path,
    vocabulary: Path,
    sequences: Path,
    evaluation: Path,
    reference_evaluation: Path,
    timings: Path,
    params: EvaluateParams,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Rank tonight's held-out targets with the champion, whatever night it is from.

    Its items are found again by their ids. What came later it cannot score: as a
    target that is a miss, in a history it is left out, as serving would.

    Args:
        champion: a package, or a directory that says there is none yet.
        reference: the same, of the student that small losses add up against.
        vocabulary: tonight's.
        sequences: tonight's.
        evaluation: the directory to make; without a champion it says so and holds no rank.
        reference_evaluation: the same for the reference; its ranks alone are measured.
        timings: the file to write.
        params: as in ``evaluate``.
        reporter: shows progress.

    Returns:
        As ``evaluate``; ``{"champion": None}`` where there is none.
    """
    _rank_reference(reference, vocabulary, sequences, reference_evaluation, params, reporter)
    if is_none(champion):
        write_evaluation(evaluation, {}, Sequences.open(sequences).n_items, {}, none=True)
        write_json(timings, {"champion": None})
        return {"champion": None}
    return measure(champion, vocabulary, sequences, evaluation, timings, params, reporter)


def _rank_reference(
    reference: Path, vocabulary: Path, sequences: Path, evaluation: Path, params: EvaluateParams, reporter: Reporter
) -> None:
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    if is_none(reference):
        write_evaluation(evaluation, {}, events.n_items, {}, none=True)
        return
    catalogue = Catalogue(events, words.popularity, params.ks, params.short_history, params.head_share)
    rank(Student.load(reference, threads=params.threads), words, catalogue, evaluation, params, reporter)
