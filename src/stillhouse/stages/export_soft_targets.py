"""The stage ``export_soft_targets``: what the teacher says at every training position, kept for all students."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.data.files import read_json, sha256_file
from stillhouse.data.sequences import Sequences
from stillhouse.distill.draws import uniforms
from stillhouse.distill.extract import extract
from stillhouse.distill.positions import Windows, seen_pairs, spread, windows
from stillhouse.distill.store_writer import StoreWriter, new_header
from stillhouse.errors import StoreError, TrainingError
from stillhouse.models.checkpoint import load
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.reporting import Reporter
from stillhouse.train.compute import fabric_of, repeatable
from stillhouse.train.night import read_night

__all__ = ["export_soft_targets"]

_WEIGHTS = "model.safetensors"
#: Scores held at once (rows × items): bounds memory, whatever the batch and the catalogue.
_CELLS = 1 << 20

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
) -> Mapping[str, Any]:
    """Score every training position with the teacher and keep the result as a store.

    Args:
        teacher: the teacher's checkpoint.
        checked: the report of ``check_teacher``.
        vocabulary: tonight's vocabulary.
        sequences: tonight's sequences.
        soft_targets: the store to make (format: docs/soft-targets.md).
        resume: where finished shards wait for the others; survives a kill.
        params: what is kept.
        reporter: hears of progress.

    Returns:
        ``positions``, ``shards``, ``bytes``, ``bytes_per_position`` and, for each
        temperature, the mean probability of the stored top k among the unseen items.

    Raises:
        StoreError: the teacher did not pass its check, or there is no position to score.
        TrainingError: the teacher's checkpoint is damaged, of another vocabulary, or gives scores that are not finite.
        DataError: sequences and vocabulary are not of one night.
    """
    if read_json(checked).get("passed") is not True:
        raise StoreError(f"a teacher must pass check_teacher before it teaches, found one that did not ({checked})")
    words, histories = read_night(vocabulary, sequences, params.repeat_items)
    model, header = load(teacher, vocabulary=words.digest)
    plan = windows(histories.train_length, model.length)
    if len(plan) == 0:
        raise StoreError(f"soft targets need a user with two training rows, found none ({sequences})")
    writer = StoreWriter(
        resume,
        new_header(
            teacher=sha256_file(teacher / _WEIGHTS),
            vocabulary=words.digest,
            n_items=header.n_items,
            n_users=histories.n_users,
            length=model.length,
            k=params.k,
            tail_samples=params.tail_samples,
            temperatures=params.temperatures,
            repeat_items=params.repeat_items,
        ),
    )
    shards = _shards(plan, params)
    _write_missing(writer, _Scorer(model, histories, params), shards, reporter)
    store = writer.publish(soft_targets, len(shards), plan)
    size = sum(file.stat().st_size for file in soft_targets.iterdir())
    return {
        "positions": store.positions,
        "shards": len(shards),
        "bytes": size,
        "bytes_per_position": round(size / store.positions, 3),
        "top_k_probability": _mean_mass(writer.summaries(len(shards)), store.positions),
    }


def _shards(plan: Windows, params: ExportSoftTargetsParams) -> list[list[Windows]]:
    """Group batches of users into shards; a shard ends with the batch that fills it.

    The batches are the same whatever the size of a shard: a matrix product may
    round otherwise in another company of rows, and shards must not change bytes.
    """
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
    with reporter.progress("soft targets", total) as bar, repeatable(scorer.params.compute):
        for number, (batches, done) in enumerate(zip(shards, kept, strict=True)):
            if not done:
                parts = [part for batch in batches for part in scorer.parts(batch)]
                tensors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                writer.write(number, tensors, _mass(tensors, scorer.params.temperatures))
            bar.advance(sum(int(batch.counts.sum()) for batch in batches))


class _Scorer:
    """The teacher at work: a batch of users in, what the store keeps of their positions out."""

    def __init__(self, model: SequenceModel, histories: Sequences, params: ExportSoftTargetsParams) -> None:
        self.params = params
        self._fabric = fabric_of(params.compute)
        self._model = model.to(self._fabric.device)
        self._histories = histories
        self._k = min(params.k, model.n_items)
        self._rows = max(1, _CELLS // (model.n_items + 1))

    @torch.inference_mode()
    def parts(self, batch: Windows) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the tensors of the batch's positions, a bounded number of rows at once."""
        rows, steps = spread(batch.first, batch.counts)
        users = batch.users[rows]
        inputs = self._histories.padded(batch.users, batch.first + batch.counts, int(batch.counts.max()))
        real = np.flatnonzero(np.arange(inputs.shape[1]) < batch.counts[:, None])
        with self._fabric.autocast():
            hidden = self._model.hidden(self._on_device(inputs)).float().flatten(0, 1)
        hidden = hidden.index_select(0, self._on_device(real))
        for start in range(0, len(users), self._rows):
            part = slice(start, start + self._rows)
            yield self._part(self._model.scores(hidden[part]), users[part], steps[part])

    def _part(self, scores: Tensor, users: Int, steps: Int) -> dict[str, NDArray[Any]]:
        if not bool(scores[:, 1:].isfinite().all()):
            raise TrainingError("a teacher's scores must be finite, found NaN or infinity: train the teacher again")
        seen = (np.empty(0, np.int64), np.empty(0, np.int64))
        if not self.params.repeat_items:
            seen = seen_pairs(self._histories.items, self._histories.offsets, users, steps)
        numbers = uniforms(self.params.seed, users, steps, self.params.tail_samples)
        pairs = (self._on_device(seen[0]), self._on_device(seen[1]))
        kept = extract(scores, pairs, self._k, self.params.temperatures, self._on_device(numbers))
        return {name: tensor.cpu().numpy() for name, tensor in kept.items()}

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._fabric.device)


def _mass(tensors: Mapping[str, NDArray[Any]], temperatures: tuple[float, ...]) -> dict[str, float]:
    """Sum over positions of the top k's probability at each temperature."""
    sums = {}
    for column, temperature in enumerate(temperatures):
        head = np.exp(tensors["scores"].astype(np.float64) / temperature).sum(axis=1)
        tail = np.exp(tensors["tail_lse"][:, column].astype(np.float64))
        sums[f"{temperature:g}"] = float((head / (head + tail)).sum())
    return sums


def _mean_mass(sums: list[Mapping[str, float]], positions: int) -> dict[str, float]:
    return {name: sum(part[name] for part in sums) / positions for name in sums[0]}
