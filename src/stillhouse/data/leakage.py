"""Nothing held out was ever trained on: asserted, not assumed.

Tonight's models start from last night's weights, so it is not enough that
tonight's training rows leave the targets out: no ancestor may have seen them
either. Every night therefore keeps the hashes of all rows that it or an
ancestor trained on (``trained.npy`` in the vocabulary).

The hash of a row must be the same on every night and machine: ids go through
BLAKE2b, and user, item and time are mixed by the finaliser of SplitMix64.
Two rows among ten million share one by chance once in some 400,000 nights; a
held-out event is then dropped for nothing, which costs one target.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillhouse.data.events import Events
from stillhouse.data.sequences import SPLITS, Sequences, Split
from stillhouse.data.split import Cut, Window
from stillhouse.errors import DataError

__all__ = ["Hashes", "among", "check_cut", "check_histories", "load_trained", "row_hashes", "save_trained", "union"]

#: 64-bit hashes of rows.
Hashes = npt.NDArray[np.uint64]


def row_hashes(events: Events) -> Hashes:
    """Return a 64-bit hash of each row's (user_id, item_id, time), uint64 [n]."""
    users = _id_hashes(events.user_ids)
    items = _id_hashes(events.item_ids)
    mixed = _mix(_mix(users)[events.users] + items[events.items])
    return _mix(mixed + events.times.astype(np.uint64))


def _id_hashes(ids: Sequence[str]) -> Hashes:
    digests = b"".join(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest() for text in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def load_trained(vocabulary: Path) -> Hashes:
    """Return the sorted hashes of what last night's models and their ancestors trained on.

    Raises:
        DataError: last night's vocabulary has no such file.
    """
    path = vocabulary / "trained.npy"
    if not path.is_file():
        raise DataError(
            f"last night's vocabulary must hold trained.npy, found none in {vocabulary}: "
            "without it nobody can say what its models trained on; restore it with dvc checkout"
        )
    return np.asarray(np.load(path, allow_pickle=False), np.uint64)


def save_trained(vocabulary: Path, trained: Hashes) -> None:
    """Write the sorted unique hashes ``trained`` beside the vocabulary."""
    np.save(vocabulary / "trained.npy", trained, allow_pickle=False)


def union(*parts: Hashes) -> Hashes:
    """Return the hashes of all ``parts``, sorted, each once."""
    # np.unique of NumPy 2.4 takes a hash table here: ten million took 4 s, sorting them takes 0.1 s.
    merged = np.sort(np.concatenate(parts))
    return merged[np.concatenate([[True], merged[1:] != merged[:-1]])] if len(merged) else merged


def among(hashes: Hashes, trained: Hashes) -> npt.NDArray[np.bool_]:
    """Say of each hash whether it is in ``trained``, which is sorted, bool [n]."""
    found = np.zeros(len(hashes), bool)
    if not len(trained):
        return found
    # Looked up in order, neighbours share cache lines: several times as fast.
    order = np.argsort(hashes)
    wanted = hashes[order]
    place = np.minimum(np.searchsorted(trained, wanted), len(trained) - 1)
    found[order] = trained[place] == wanted
    return found


def check_cut(events: Events, cut: Cut, hashes: Hashes, trained: Hashes, window: Window) -> None:
    """Assert that no target was trained on, tonight or by an ancestor, and that no training row is in the window.

    Args:
        events: rows in chronological order.
        cut: their splits, after targets that an ancestor saw were taken out.
        hashes: `row_hashes` of the rows.
        trained: everything that tonight's models and their ancestors train on, sorted.
        window: the time window.

    Raises:
        DataError: it is not so; a defect of the stage, never of the data.
    """
    if leaked := int(among(hashes[cut.held_out], trained).sum()):
        raise DataError(f"no held-out event may be trained on, found {leaked}: a defect of the stage prepare")
    if window.start is not None and (late := int((events.times[cut.train] > window.start).sum())):
        raise DataError(f"no training row may lie in the time window, found {late}: a defect of the stage prepare")


def check_histories(sequences: Sequences, target_times: dict[Split, npt.NDArray[np.int64]]) -> None:
    """Assert that each target's history ends before it and that nothing of it is missing.

    The last event of the history is not later than the target, and where the
    target's item is in the vocabulary, the event that follows the history is
    the target itself.

    Args:
        sequences: what will be written.
        target_times: time of each target, a table a split, int64 [n].

    Raises:
        DataError: it is not so; a defect of the stage, never of the data.
    """
    for split in SPLITS:
        users, lengths, items = sequences.targets(split).T
        times, ends = target_times[split], sequences.offsets[users] + lengths
        inside = (lengths >= 0) & (ends + (items > 0) <= sequences.offsets[users + 1])
        wrong = int((~inside).sum())
        some = inside & (lengths > 0)
        wrong += int((sequences.times[ends[some] - 1] > times[some]).sum())
        known = inside & (items > 0)
        wrong += int((sequences.items[ends[known]] != items[known]).sum())
        wrong += int((sequences.times[ends[known]] != times[known]).sum())
        if wrong:
            raise DataError(
                f"each history must end right before its target, found {wrong} in {split} that do not: "
                "a defect of the stage prepare"
            )
