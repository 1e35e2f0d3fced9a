"""The stage ``export_soft_targets``: what the teacher says at every training position, kept for all students."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.data.files import is_none, read_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.substitution import origin, with_copies
from stillhouse.data.tonight import read_night
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.coding_positions import RowCode, encode
from stillhouse.distill.draws import Strata, strata_of, tail_draws
from stillhouse.distill.extract import extract
from stillhouse.distill.layers import Standing, standing
from stillhouse.distill.positions import Windows, row_digests, seen_pairs, spread, windows
from stillhouse.distill.store_format import HIDDEN, StoreHeader
from stillhouse.distill.store_writer import StoreWriter, new_header
from stillhouse.errors import StoreError, TrainingError
from stillhouse.models.checkpoint import digest, load
from stillhouse.models.protocol import Recommender
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.reporting import Reporter
from stillhouse.train.compute import device_of, repeatable, scoring

__all__ = ["export_soft_targets"]

#: Scores held at once (rows × items) by a thread on a CPU: they stay in its cache, whatever batch and catalogue are.
_CELLS = 1 << 20
#: The same on a GPU: enough to be worth a launch.
_CELLS_GPU = 1 << 27
#: Users of a batch that the teacher reads at once: those of similar length, which spares padding.
_ALIKE = 64
#: Batches a worker that are begun before they are asked for.
_AHEAD = 2

Int = NDArray[np.int64]


def export_soft_targets(
    *,
    teacher: Path,
    checked: Path,
    vocabulary: Path,
    sequences: Path,
    soft_targets: Path,
    resume: Path,
    params: ExportSoftTargetsParams,
    reporter: Reporter,
    previous_soft_targets: Path | None = None,
) -> Mapping[str, Any]:
    """Score training positions with the teacher and keep the result as a store.

    Those of every user, or, where the teacher started from last night's weights and
    ``keep_nights`` allows, of users whose training rows have changed; last night's store
    then stands beneath tonight's and answers for the others. With ``hidden`` the store keeps
    the teacher's states too, and every user is scored. With ``copies`` histories that nobody
    had are scored beside everybody's.

    Args:
        teacher: the teacher's checkpoint.
        checked: the report of ``check_teacher``.
        vocabulary: tonight's vocabulary.
        sequences: tonight's sequences.
        soft_targets: the store to make (format: docs/soft-targets.md). Where the same store
            stands there already, its whole shards are kept and damaged ones made again.
        resume: where finished shards wait for the others; survives a kill.
        params: what is kept.
        reporter: hears of progress.
        previous_soft_targets: last night's store, or nothing.

    Returns:
        ``positions``, of them ``positions_scored`` tonight, ``layers`` of earlier nights,
        ``shards`` written, ``bytes`` and ``bytes_per_position`` of the whole and, for each
        temperature, the mean probability of the stored top k among the unseen items.

    Raises:
        StoreError: the teacher did not pass its check, has no states that could be kept, or there is no position to
            score.
        TrainingError: the teacher's checkpoint is damaged, of another vocabulary, or gives scores or states that are
            not finite.
        DataError: sequences and vocabulary are not of one night.
    """
    if read_json(checked).get("passed") is not True:
        raise StoreError(f"a teacher must pass check_teacher before it teaches, found one that did not ({checked})")
    words, events = read_night(vocabulary, sequences, params.repeat_items)
    histories = with_copies(events, params.copies, params.substituted, params.seed)
    model, made = load(teacher, vocabulary=words.digest)
    plan = windows(histories.train_length, model.length, whole=params.windows == "all")
    if len(plan) == 0:
        raise StoreError(f"soft targets need a user with two training rows, found none ({sequences})")
    strata = strata_of(words.popularity[1:], params.tail_samples)
    width = _hidden_width(model, made.spec.kind) if params.hidden else 0
    header = _header(digest(teacher), model.length, width, words, histories, params)
    digests = row_digests(histories.items, histories.offsets, histories.train_length)
    before = previous_soft_targets if made.warm and params.keep_nights else None
    kept = _standing(before, header, words, digests, params, reporter)
    header = header.model_copy(update={"layers": tuple(layer.entry for layer in kept.layers)})
    writer = StoreWriter(resume, header, strata)
    writer.adopt(soft_targets)
    scored = plan.some(~kept.users[plan.users])
    shards = _shards(scored, params)
    _write_missing(writer, _Scorer(model, histories, events.n_users, strata, header.code, params), shards, reporter)
    table = model.item_table()
    items = None if table is None else table.detach().cpu().numpy().astype(np.float16)
    store = writer.publish(soft_targets, len(shards), scored, digests, kept.layers, items)
    positions = int(plan.counts.sum())
    size = sum(file.stat().st_size for file in soft_targets.rglob("*") if file.is_file())
    return {
        "positions": positions,
        "positions_scored": store.positions,
        "layers": len(kept.layers),
        "shards": len(shards),
        "bytes": size,
        "bytes_per_position": round(size / positions, 3),
        "top_k_probability": _mean_mass([store, *(layer.header for layer in kept.layers)]),
    }


def _standing(
    previous: Path | None,
    header: StoreHeader,
    words: Vocabulary,
    digests: Int,
    params: ExportSoftTargetsParams,
    reporter: Reporter,
) -> Standing:
    """Return what still stands of the store ``previous``; nothing where there is none or it cannot be read."""
    nothing = Standing((), np.zeros(len(digests), dtype=bool))
    if previous is None or is_none(previous):
        return nothing
    if params.hidden:
        reporter.note("everybody is scored: the states of two teachers lie in no common basis")
        return nothing
    try:
        found = standing(previous, header, words.item_ids, digests, nights=params.keep_nights)
    except StoreError as error:  # such as one of an older version: it is of use to nobody, and no reason to fail
        reporter.note(f"everybody is scored: {error}")
        return nothing
    people = int(found.users[: len(words.user_ids)].sum())  # behind them stand copies
    reporter.note(f"{people} users keep what an earlier teacher said, of {len(found.layers)} nights")
    return found


@torch.inference_mode()
def _hidden_width(model: Recommender, kind: str) -> int:
    """Return the width of the states of ``model``, a teacher of ``kind``.

    Raises:
        StoreError: it has none.
    """
    states = model.position_hidden(torch.ones((1, 1), dtype=torch.int64))
    if states is None:
        raise StoreError(
            f"a teacher must have a state behind each position for its states to be kept, found one of kind {kind}, "
            "which has none (params.yaml: export_soft_targets.hidden): set it to false, or train a teacher that is "
            "one transformer, gru or bidirectional"
        )
    return states.shape[1]


def _header(
    teacher: str, length: int, width: int, words: Vocabulary, histories: Sequences, params: ExportSoftTargetsParams
) -> StoreHeader:
    return new_header(
        teacher=teacher,
        vocabulary=words.digest,
        inputs=_inputs(words, histories, params),
        n_items=words.n_items,
        n_users=histories.n_users,
        length=length,
        windows=params.windows,
        k=params.k,
        score_bits=params.score_bits,
        tail_samples=params.tail_samples,
        tail_bits=params.tail_bits,
        temperatures=params.temperatures,
        seed=params.seed,
        repeat_items=params.repeat_items,
        hidden_width=width,
        copies=params.copies,
        substituted=params.substituted if params.copies else 0.0,
    )


def _inputs(words: Vocabulary, histories: Sequences, params: ExportSoftTargetsParams) -> str:
    """Return a digest of what, beside the teacher, decides the bytes of the store."""
    found = hashlib.sha256(params.model_dump_json().encode())
    for array in (words.popularity, histories.items, histories.offsets, histories.train_length):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _shards(plan: Windows, params: ExportSoftTargetsParams) -> list[list[Windows]]:
    """Group batches of users into shards; a shard ends with the batch that fills it.

    The batches are the same whatever the size of a shard: a matrix product may
    round otherwise in another company of rows, and shards must not change bytes.
    """
    if len(plan) == 0:
        return []
    size = params.batch_size
    batches = [plan.part(start, start + size) for start in range(0, len(plan), size)]
    starts = np.cumsum([0, *(int(batch.counts.sum()) for batch in batches[:-1])])
    owners = (starts // params.shard_positions).tolist()
    pairs = groupby(zip(owners, batches, strict=True), key=itemgetter(0))
    return [[batch for _, batch in group] for _, group in pairs]


def _write_missing(writer: StoreWriter, scorer: _Scorer, shards: list[list[Windows]], reporter: Reporter) -> None:
    kept = [writer.finished(number) for number in range(len(shards))]
    if any(kept):
        reporter.note(f"{sum(kept)} of {len(shards)} shards stand finished from an earlier run")
    total = sum(int(batch.counts.sum()) for shard in shards for batch in shard)
    missing = [batch for batches, done in zip(shards, kept, strict=True) if not done for batch in batches]
    with (
        reporter.progress("soft targets", total) as bar,
        repeatable(scorer.params.compute),
        _ahead(scorer, missing) as scored,
    ):
        for number, (batches, done) in enumerate(zip(shards, kept, strict=True)):
            if done:
                bar.advance(sum(int(batch.counts.sum()) for batch in batches))
                continue
            parts: list[dict[str, NDArray[Any]]] = []
            for part in islice(scored, len(batches)):
                parts.append(part)
                bar.advance(len(part["peak"]))
            tensors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            writer.write(number, tensors, tensors.pop("top_k_probability").mean(axis=0).tolist())


@contextmanager
def _ahead(scorer: _Scorer, batches: Sequence[Windows]) -> Iterator[Iterator[dict[str, NDArray[Any]]]]:
    """Give what ``scorer`` says of ``batches``, in their order; while one is put on disk, the next are scored.

    A few batches a worker are begun or wait for the caller, no more: memory is bounded however slow a disk is.
    """
    most = _AHEAD * scorer.workers
    with ThreadPoolExecutor(scorer.workers, initializer=partial(torch.set_num_threads, scorer.threads)) as pool:

        def results() -> Iterator[dict[str, NDArray[Any]]]:
            begun: deque[Future[dict[str, NDArray[Any]]]] = deque()
            for batch in batches:
                begun.append(pool.submit(scorer.rows, batch))
                if len(begun) > most:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()

        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)


class _Scorer:
    """The teacher at work: a batch of users in, coded rows of their positions out."""

    def __init__(
        self,
        model: Recommender,
        histories: Sequences,
        people: int,
        strata: Strata,
        code: RowCode,
        params: ExportSoftTargetsParams,
    ) -> None:
        self.params = params
        self._device = device_of(params.compute)
        self._model = model.to(self._device)
        self._histories, self._people = histories, people
        self._strata = strata
        self._code = code
        on_gpu = self._device.type == "cuda"
        # On a CPU each batch has a thread that shares its work with no other: its tables stay in the cache of one core.
        self.workers, self.threads = (1, params.compute.threads) if on_gpu else (params.compute.threads, 1)
        self._rows = max(1, (_CELLS_GPU if on_gpu else _CELLS) // (code.n_items + 1))

    @torch.inference_mode()
    def rows(self, batch: Windows) -> dict[str, NDArray[Any]]:
        """Return the tensors of a shard for the batch's positions, and ``top_k_probability`` of each.

        Users of similar length are scored together, which spares padding.
        """
        by_length = np.argsort(batch.counts, kind="stable")
        parts: list[dict[str, NDArray[Any]]] = []
        places: list[Int] = []
        starts = np.cumsum(batch.counts) - batch.counts
        for start in range(0, len(batch), _ALIKE):
            some = np.sort(by_length[start : start + _ALIKE])
            alike = Windows(batch.users[some], batch.first[some], batch.counts[some])
            parts += self._scored(alike)
            places.append(spread(starts[some], alike.counts)[1])
        order = np.argsort(np.concatenate(places))
        kept = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        states = {HIDDEN: kept[HIDDEN]} if self.params.hidden else {}
        return encode(kept, self._code) | states | {"top_k_probability": _mass(kept, self.params.temperatures)}

    def _scored(self, batch: Windows) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield what is kept of the batch's positions, a bounded number of rows at once."""
        rows, steps = spread(batch.first, batch.counts)
        users = batch.users[rows]
        inputs = self._histories.padded(batch.users, batch.first + batch.counts, int(batch.counts.max()))
        drawn = tail_draws(self.params.seed, users, steps, self._strata).astype(np.int64)
        seen = self._seen(users, steps)
        with scoring(self.params.compute):
            # Of a cross-fitted teacher, those who have not seen the original speak of its copies.
            people = self._on_device(origin(batch.users, self._people))
            score = self._model.position_scorer(self._on_device(inputs), people)
        for start in range(0, len(users), self._rows):
            part = slice(start, start + self._rows)
            with scoring(self.params.compute):
                scores = score(part)
            first, last = np.searchsorted(seen[0], [start, start + self._rows])
            pairs = (seen[0][first:last] - start, seen[1][first:last])
            kept = self._kept(scores.float(), pairs, drawn[part])
            if self.params.hidden and score.states is not None:
                kept[HIDDEN] = _half(score.states[part])
            yield kept

    def _seen(self, users: Int, steps: Int) -> tuple[Int, Int]:
        """What is no candidate at each position, as (row, item)."""
        if self.params.repeat_items:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return seen_pairs(self._histories.items, self._histories.offsets, users, steps)

    def _kept(self, scores: Tensor, seen: tuple[Int, Int], drawn: Int) -> dict[str, NDArray[Any]]:
        pairs = (self._on_device(seen[0]), self._on_device(seen[1]))
        kept = extract(scores, pairs, self._code.k, self.params.temperatures, self._on_device(drawn))
        found = {name: tensor.cpu().numpy() for name, tensor in kept.items()}
        # Whatever is not finite among the scores is, or is part of, one of these.
        _require_finite("scores", bool(np.isfinite(found["peak"]).all() and (found["tail_lse"] < np.inf).all()))
        return found

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _half(states: Tensor) -> NDArray[np.float16]:
    """Return ``states`` as float16, in which what is finite stays finite.

    Raises:
        TrainingError: they are not finite.
    """
    _require_finite("states", bool(states.isfinite().all()))
    most = torch.finfo(torch.float16).max
    half: NDArray[np.float16] = states.clamp(-most, most).half().cpu().numpy()
    return half


def _require_finite(what: str, finite: bool) -> None:
    if not finite:
        raise TrainingError(f"a teacher's {what} must be finite, found NaN or infinity: train the teacher again")


def _mass(kept: Mapping[str, NDArray[Any]], temperatures: tuple[float, ...]) -> NDArray[np.float64]:
    """The top k's probability at each position and temperature, [N, temperatures]."""
    columns = []
    for column, temperature in enumerate(temperatures):
        head = np.exp(kept["scores"] / np.float32(temperature)).sum(axis=1)
        columns.append(head / (head + np.exp(kept["tail_lse"][:, column])))
    return np.stack(columns, axis=1).astype(np.float64)


def _mean_mass(stores: Sequence[StoreHeader]) -> dict[str, float]:
    """Return the mean over all positions of ``stores`` of the top k's probability, by temperature."""
    shards = [entry for store in stores for entry in store.shards]
    found = np.average([entry.top_k_probability for entry in shards], axis=0, weights=[one.positions for one in shards])
    return {f"{value:g}": float(mean) for value, mean in zip(stores[0].temperatures, found, strict=True)}
