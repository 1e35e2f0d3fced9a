"""evaluate: how good a package is, on both protocols, and how fast and large."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.files import read_json, write_json
from stillhouse.data.sequences import Sequences, Split
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import PackageError, one_line
from stillhouse.evaluate.latency import timings as measured
from stillhouse.evaluate.mapped import ItemMapping, mapped_scorer
from stillhouse.evaluate.popularity import PopularityScorer, popularity_scores
from stillhouse.evaluate.ranks import Protocol, write_evaluation
from stillhouse.evaluate.report import Catalogue, protocol_metrics, protocol_slices
from stillhouse.evaluate.scoring import Scored, Scorer, score_split
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.reporting import Reporter
from stillhouse.serve.student import Student

__all__ = ["SPLITS", "evaluate", "measure", "rank"]

#: Which held-out targets a protocol ranks.
SPLITS: dict[Protocol, Split] = {"leave_one_out": "test", "time_window": "window"}

#: What an evaluation repeats from the package, so that one file says it all.
_FROM_PACKAGE = ("bytes", "parameters", "parameters_without_embeddings", "flops")

#: Length of a list in the timed requests.
_LIST = 10


def evaluate(
    *,
    package: Path,
    vocabulary: Path,
    sequences: Path,
    evaluation: Path,
    timings: Path,
    params: EvaluateParams,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Rank every held-out target with the package, and time it.

    Args:
        package: a student's package.
        vocabulary: tonight's.
        sequences: tonight's, with both splits.
        evaluation: the directory to make: ``ranks.parquet`` and ``slices.json``.
        timings: the file to write, which differs from run to run.
        params: cut-offs, slices and thread counts.
        reporter: shows progress.

    Returns:
        Figures of both protocols (``time_window`` is None without a window), popularity's
        for comparison, and the package's size and cost.

    Raises:
        PackageError: the package was made with another setting of ``repeat_items``, or is damaged.
    """
    if (found := _card(package)["repeat_items"]) != params.repeat_items:
        raise PackageError(
            f"a package must be made with repeat_items {params.repeat_items}, found {found} in {package.name} "
            "(params.yaml: repeat_items): run the stage package again"
        )
    return measure(package, vocabulary, sequences, evaluation, timings, params, reporter)


def measure(
    package: Path,
    vocabulary: Path,
    sequences: Path,
    evaluation: Path,
    timings: Path,
    params: EvaluateParams,
    reporter: Reporter,
) -> dict[str, Any]:
    """Do the work of `evaluate`, on a package of tonight's or any earlier night's vocabulary.

    Tonight's ``repeat_items`` decides what is filtered, whatever the package was made with.
    """
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    student = Student.load(package, threads=params.threads)
    catalogue = Catalogue(events, words.popularity, params.ks, params.short_history, params.head_share)
    scored = rank(student, words, catalogue, evaluation, params, reporter)
    write_json(timings, _timings(package, student, events, words, params))
    card = _card(package)
    return {
        **{name: protocol_metrics(rows, catalogue) for name, rows in scored.items()},
        "popularity": {"leave_one_out": protocol_metrics(_popularity(events, words, params), catalogue)},
        **{key: card[key] for key in _FROM_PACKAGE},
    }


def _card(package: Path) -> dict[str, Any]:
    """Return what a package says of itself.

    Raises:
        PackageError: it says nothing, or not all that an evaluation repeats.
    """
    path = package / "package.json"
    try:
        card: dict[str, Any] = read_json(path)
        missing = [key for key in (*_FROM_PACKAGE, "repeat_items") if key not in card]
    except (OSError, TypeError, ValueError) as error:
        text = f"{path} must describe the package, found {error!r}: run the stage package again"
        raise PackageError(one_line(text)) from None
    if missing:
        raise PackageError(f"{path} must say {', '.join(missing)}, found nothing: run the stage package again")
    return card


def rank(
    student: Student,
    words: Vocabulary,
    catalogue: Catalogue,
    evaluation: Path,
    params: EvaluateParams,
    reporter: Reporter,
) -> dict[Protocol, Scored]:
    """Rank every held-out target with ``student``, keep the ranks in ``evaluation`` and return what was scored."""
    events = catalogue.sequences
    events.require(words)
    scored = {name: _score(student, events, words, split, params, reporter) for name, split in SPLITS.items()}
    slices = {name: protocol_slices(rows, catalogue) for name, rows in scored.items() if len(rows.ranks)}
    write_evaluation(evaluation, scored, words.n_items, slices)
    return scored


def _score(
    student: Student, events: Sequences, words: Vocabulary, split: Split, params: EvaluateParams, reporter: Reporter
) -> Scored:
    packaged = student.packaged
    shares = popularity_scores(packaged.popularity)
    scorer: Scorer = packaged.scores
    theirs: NDArray[np.int64] | None = None
    if packaged.vocabulary != words.digest:
        mapping = ItemMapping(words.item_indices(packaged.item_ids), words.n_items)
        scorer, theirs, shares = mapped_scorer(scorer, mapping), mapping.theirs, mapping.spread(shares[None])[0]
    return score_split(
        events,
        split,
        scorer,
        length=packaged.length,
        k=max(params.ks),
        batch_size=params.batch_size,
        repeat_items=params.repeat_items,
        fallback=shares,
        index=theirs,
        reporter=reporter,
        threads=params.threads,
    )


def _popularity(events: Sequences, words: Vocabulary, params: EvaluateParams) -> Scored:
    return score_split(
        events,
        "test",
        PopularityScorer(words.popularity),
        length=1,
        k=max(params.ks),
        batch_size=params.batch_size,
        repeat_items=params.repeat_items,
        threads=params.threads,
    )


def _timings(
    package: Path, student: Student, events: Sequences, words: Vocabulary, params: EvaluateParams
) -> dict[str, float | int | None]:
    """Time whole requests (ids in, a list with titles out) and batches of scores, on real histories."""
    single = Student.load(package, threads=params.latency_threads)
    targets = np.asarray(events.test)
    asked = targets[: params.latency_requests]
    requests = [[words.item_ids[item] for item in events.history(int(user), int(n))] for user, n, _ in asked]
    batch: NDArray[np.int64] = events.padded(
        targets[: params.batch_size, 0], targets[: params.batch_size, 1], student.packaged.length
    )
    return measured(
        lambda history: single.recommend(history, _LIST),
        requests,
        student.packaged.scores,
        # An earlier night's package lacks the newest items; which ones it scores does not change how long it takes.
        np.minimum(batch, student.packaged.n_items),
        count=params.latency_requests,
        latency_threads=params.latency_threads,
        threads=params.threads,
    )
