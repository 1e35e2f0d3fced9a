"""The stage ``check_teacher``: stops the night before a bad teacher poisons every student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.files import is_none, write_json
from stillhouse.data.sequences import Sequences, Split
from stillhouse.data.tonight import read_night
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import TrainingError
from stillhouse.evaluate.latency import request_latency, throughput
from stillhouse.evaluate.mapped import ItemMapping, mapped_scorer
from stillhouse.evaluate.popularity import PopularityScorer, popularity_scores
from stillhouse.evaluate.report import Catalogue, protocol_metrics
from stillhouse.evaluate.scoring import Scorer, score_split
from stillhouse.models.checkpoint import load, size
from stillhouse.models.cost import cost
from stillhouse.models.protocol import Recommender
from stillhouse.models.warm import require_grown
from stillhouse.params.check_teacher import CheckTeacherParams
from stillhouse.params.model import BidirectionalSpec, EnsembleSpec, GruSpec, TeacherSpec, TransformerSpec
from stillhouse.reporting import Reporter
from stillhouse.train.compute import device_of, repeatable, scoring
from stillhouse.train.validation import ValidationSet

__all__ = ["check_teacher"]

_BATCH = 256
_K = 10
#: Single requests that latency is taken over.
_REQUESTS = 200
#: Users whose last trained position tells what the teacher gains from having seen it.
_TRAINED = 2000
#: A teacher that is so many times as good where it was trained remembers rather than knows.
_REMEMBERS = 1.3
_CROSS_FIT = (
    "the teacher is {train_over_valid:.2f} times as good at positions that it was trained on (NDCG@10 "
    "{train_ndcg_at_10:.4f} against {ndcg_at_10:.4f}): it may remember what it is to teach. kind: cross_fitted asks "
    "whoever was not trained on a position (params.yaml: train_teacher.model; docs/methods.md)"
)

Figures = dict[str, Any]


def check_teacher(
    *,
    teacher: Path,
    vocabulary: Path,
    sequences: Path,
    previous_teacher: Path,
    checked: Path,
    timings: Path,
    params: CheckTeacherParams,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Hold the teacher to its floors on the validation split, and measure it on what was held out.

    Args:
        teacher: tonight's teacher.
        vocabulary: tonight's vocabulary.
        sequences: tonight's sequences.
        previous_teacher: last night's teacher, or nothing.
        checked: the report to write; it exists only where the teacher passed.
        timings: the file to write, which differs from run to run.
        params: the floors.
        reporter: shows progress and what was found.

    Returns:
        The figures of ``checked``'s validation part, and, as `stillhouse.stages.evaluate` has
        them, of leave-one-out and the time window, of popularity, and size and cost.

    Raises:
        TrainingError: the teacher gives scores that are not finite, is no better than popularity,
            fell behind last night's, or recommends a handful of items to everybody.
    """
    words, events = read_night(vocabulary, sequences, params.repeat_items)
    model, header = load(teacher, vocabulary=words.digest)
    with repeatable(params.compute):
        bench = _Bench(words, events, params, reporter)
        found = bench.validation(model, previous_teacher)
        reporter.note(", ".join(f"{name} {value:.4g}" for name, value in found.items() if value is not None))
        if (found["train_over_valid"] or 0.0) > _REMEMBERS and _speaks_of_its_own(header.spec):
            reporter.note(_CROSS_FIT.format(**found))
        _require(found, params)
        figures = bench.held_out(model) | cost(model.cpu())
        write_json(timings, bench.timings(model))
    figures["bytes"] = size(teacher)
    write_json(checked, {"passed": True, **found})
    return found | figures


class _Bench:
    """One night's held-out targets, and every way of scoring them."""

    def __init__(self, words: Vocabulary, events: Sequences, params: CheckTeacherParams, reporter: Reporter) -> None:
        self.words, self.events, self.params, self.reporter = words, events, params, reporter
        self.device = device_of(params.compute)
        self.catalogue = Catalogue(events, words.popularity, (_K,), short_history=_K, head_share=0.5)

    def validation(self, model: Recommender, previous: Path) -> Figures:
        """Return what the floors are about, on the validation split, and what the teacher gains where it was trained.

        ``train_over_valid`` is that gain.
        """
        mine = self._figures("valid", self._scorer(model), model.length)
        trained = self._trained(model)
        popular = self._figures("valid", PopularityScorer(self.words.popularity), 1)
        return {
            "ndcg_at_10": mine["ndcg_at_10"],
            "popularity_ndcg_at_10": popular["ndcg_at_10"],
            "previous_ndcg_at_10": None if is_none(previous) else self._previous(previous),
            "coverage_at_10": mine["coverage_at_10"],
            "train_ndcg_at_10": trained,
            "train_over_valid": trained / mine["ndcg_at_10"] if mine["ndcg_at_10"] else None,
        }

    def held_out(self, model: Recommender) -> Figures:
        """Return the figures of both protocols, and popularity's."""
        scorer = self._scorer(model)
        popular = self._figures("test", PopularityScorer(self.words.popularity), 1)
        return {
            "leave_one_out": self._figures("test", scorer, model.length),
            "time_window": self._figures("window", scorer, model.length),
            "popularity": {"leave_one_out": popular},
        }

    def timings(self, model: Recommender) -> Figures:
        """Return what a request and a batch take, with torch; the model ends on the CPU."""
        scorer = _torch_scorer(model.cpu(), torch.device("cpu"), nullcontext)
        targets = np.asarray(self.events.targets("valid"))[:_BATCH]
        batch = self.events.padded(targets[:, 0], targets[:, 1], model.length)
        per_second = throughput(scorer, batch)
        torch.set_num_threads(1)
        latency = request_latency(scorer, [row[None] for row in batch], _REQUESTS)
        torch.set_num_threads(self.params.compute.threads)
        threads = {"latency_threads": 1, "threads": self.params.compute.threads}
        return {**latency, "batch_per_s": round(per_second, 1), **threads}

    def _trained(self, model: Recommender) -> float:
        """Return NDCG@10 at positions that were trained on, scored and filtered as the export does it."""
        some = ValidationSet(self.events, model.length, users=_TRAINED, split="train")
        with scoring(self.params.compute):
            return some.ndcg_at_10(model.to(self.device))

    def _previous(self, directory: Path) -> float:
        """Return last night's teacher's NDCG@10 on tonight's targets; an item that it lacks is a miss for it."""
        model, header = load(directory)
        require_grown(header, self.words.item_ids, directory)
        mapping = ItemMapping(np.arange(header.n_items + 1), self.words.n_items)
        scorer = mapped_scorer(self._scorer(model), mapping)
        return float(self._figures("valid", scorer, model.length, index=mapping.theirs)["ndcg_at_10"])

    def _figures(self, split: Split, scorer: Scorer, length: int, index: NDArray[np.int64] | None = None) -> Any:
        scored = score_split(
            self.events,
            split,
            scorer,
            length=length,
            k=_K,
            batch_size=_BATCH,
            repeat_items=self.params.repeat_items,
            fallback=popularity_scores(self.words.popularity),
            index=index,
            reporter=self.reporter,
            threads=self.params.compute.threads,
        )
        return protocol_metrics(scored, self.catalogue)

    def _scorer(self, model: Recommender) -> Scorer:
        return _torch_scorer(model.to(self.device), self.device, partial(scoring, self.params.compute))


def _torch_scorer(
    model: Recommender, device: torch.device, precision: Callable[[], AbstractContextManager[Any]]
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    @torch.no_grad()
    def score(histories: NDArray[np.int64]) -> NDArray[np.float32]:
        with precision():
            raw = model(torch.from_numpy(histories).to(device))
        scores: NDArray[np.float32] = raw.float().cpu().numpy()
        if not np.isfinite(scores[:, 1:]).all():
            raise TrainingError(
                "a teacher's scores must be finite, found NaN or an infinity: its training diverged; "
                "lower learning_rate (params.yaml: train_teacher.training) or start cold (stillhouse run --cold)"
            )
        return scores

    return score


def _speaks_of_its_own(spec: TeacherSpec) -> bool:
    """Say whether it is asked about users whom it was trained on: no table is, and nothing that is cross-fitted."""
    if isinstance(spec, EnsembleSpec):
        return any(_speaks_of_its_own(member.model) for member in spec.members.values())
    return isinstance(spec, TransformerSpec | GruSpec | BidirectionalSpec)


def _require(found: Figures, params: CheckTeacherParams) -> None:
    """Refuse a teacher below a floor.

    Raises:
        TrainingError: NDCG@10 or coverage is too low.
    """
    ndcg, popular, previous = (found[name] for name in ("ndcg_at_10", "popularity_ndcg_at_10", "previous_ndcg_at_10"))
    if ndcg < params.min_over_popularity * popular:
        raise TrainingError(
            f"the teacher's NDCG@10 must be at least {params.min_over_popularity:g} times popularity's {popular:.4f}, "
            f"got {ndcg:.4f} on the validation split (params.yaml: check_teacher.min_over_popularity): train it longer "
            "or give more data"
        )
    if previous is not None and ndcg < (1.0 - params.max_drop) * previous:
        raise TrainingError(
            f"the teacher's NDCG@10 must not fall by more than {params.max_drop:.0%} of last night's "
            f"{previous:.4f}, got {ndcg:.4f} on the validation split (params.yaml: check_teacher.max_drop): look at "
            "tonight's data, or start cold (stillhouse run --cold)"
        )
    if found["coverage_at_10"] < params.min_coverage:
        raise TrainingError(
            f"the teacher's top 10 lists must cover at least {params.min_coverage:.1%} of the items, got "
            f"{found['coverage_at_10']:.1%} (params.yaml: check_teacher.min_coverage): it collapsed; train it again "
            "with another seed or a lower learning_rate"
        )
