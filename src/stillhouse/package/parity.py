"""Does the graph score as the checkpoint does? Shown on real histories, not assumed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from stillhouse.data.sequences import Sequences
from stillhouse.errors import PackageError
from stillhouse.package.export import INPUT, OUTPUT

__all__ = ["change", "check_parity", "real_histories"]

Ints = NDArray[np.int64]

#: Histories that are also scored one by one, as serving will.
_ALONE = 4
#: Length of the lists that are compared.
_LIST = 10
#: Most scores held at once in one table (histories × items): 64 MiB of float32.
_CELLS = 1 << 24


def real_histories(sequences: Sequences, count: int, width: int) -> Ints:
    """Return the whole histories of up to ``count`` users, spread evenly from the shortest to the longest.

    Args:
        sequences: at least one user has an event.
        count: ≥ 1.
        width: columns; the most recent events are kept.

    Returns:
        int64 [n, width], right-padded with 0, n ≤ count, shortest first.
    """
    lengths = np.diff(sequences.offsets)
    users = np.argsort(lengths, kind="stable")
    users = users[lengths[users] > 0]
    chosen = users[np.unique(np.linspace(0, len(users) - 1, min(count, len(users))).round().astype(np.int64))]
    return sequences.padded(chosen, lengths[chosen], width)


def check_parity(graph: bytes, model: nn.Module, histories: Ints, limit: float) -> float:
    """Return the largest absolute difference of any score between the graph and ``model``.

    Compared are the columns 1 and up, all histories in batches as large as memory bears, and a few of them alone.

    Args:
        graph: the ONNX file's bytes.
        model: what the graph stands for, in evaluation mode on the CPU: the checkpoint's module, with its
            matrices rounded where the graph's are.
        histories: int64 [n, length], n ≥ 1.
        limit: largest difference that is let through.

    Raises:
        PackageError: the difference is larger than ``limit``, or a score is not finite.
    """
    session = _session(graph)
    alone = [row[None] for row in histories[-_ALONE:]]
    distances = []
    for part in (*_parts(histories, session), *alone):
        expected, found = _both(session, model, part)
        if not np.isfinite(expected).all() or not np.isfinite(found).all():
            raise PackageError(
                "every score must be a finite number, found NaN or infinity on real histories: "
                "the student diverged; lower its learning rate (params.yaml: train_student.training.learning_rate)"
            )
        distances.append(_distance(expected, found))
    furthest = max(distances)
    if not furthest <= limit:
        raise PackageError(
            f"package and checkpoint must agree within {limit:g} on every score, found a difference of {furthest:g} "
            f"over {len(histories)} real histories: raise the limit if such a difference may be served "
            "(params.yaml: package.parity)"
        )
    return furthest


def change(graph: bytes, model: nn.Module, histories: Ints) -> dict[str, float]:
    """Return how far the graph is from the checkpoint as it was trained: what rounding did.

    Args:
        graph: the ONNX file's bytes.
        model: the checkpoint's module as it computes, in evaluation mode on the CPU.
        histories: int64 [n, length], n ≥ 1.

    Returns:
        ``score_change``: the largest absolute difference of any score;
        ``top_10_kept``: the mean share of a list's first ten that stay among the first ten,
        with nothing filtered.
    """
    session = _session(graph)
    distances, kept = [], []
    for part in _parts(histories, session):
        expected, found = _both(session, model, part)
        distances.append(_distance(expected, found))
        before, after = _best(expected), _best(found)
        kept += [len(np.intersect1d(one, other)) / len(one) for one, other in zip(before, after, strict=True)]
    return {"score_change": float(np.max(distances)), "top_10_kept": float(np.mean(kept))}


def _parts(histories: Ints, session: onnxruntime.InferenceSession) -> list[Ints]:
    """Cut ``histories`` into batches of which a table of scores takes 64 MiB at most, or that of one history."""
    columns = session.get_outputs()[0].shape[1]
    size = max(1, _CELLS // columns)
    return [histories[first : first + size] for first in range(0, len(histories), size)]


def _both(
    session: onnxruntime.InferenceSession, model: nn.Module, histories: Ints
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the checkpoint's scores and the graph's, float32 [n, n_items]: views without column 0, which is none."""
    with torch.inference_mode():
        expected = model(torch.from_numpy(histories)).numpy()
    found = session.run([OUTPUT], {INPUT: histories})[0]
    return expected[:, 1:], found[:, 1:]


def _best(scores: NDArray[np.float32]) -> Ints:
    """Return the columns of each row's best ten, int64 [n, 10], in no order; of fewer columns all."""
    k = min(_LIST, scores.shape[1])
    best: Ints = np.argpartition(scores, -k, axis=1)[:, -k:]
    return best


def _distance(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(np.abs(expected - found).max())  # the difference of two that are close is exact in float32


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # As serving does: eight-bit weights are decoded when the graph is loaded.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
