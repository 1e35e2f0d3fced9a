"""Small teachers and stores, made without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.distill.coding_positions import encode
from stillhouse.distill.draws import strata_of, tail_draws
from stillhouse.distill.extract import extract
from stillhouse.distill.positions import Windows, row_digests, seen_pairs, spread, windows
from stillhouse.distill.soft_targets import SoftTargets, TargetBatch
from stillhouse.distill.store_writer import StoreWriter, new_header


@dataclass(frozen=True)
class MadeStore:
    """A store on disk and what it was made from."""

    path: Path
    items: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray
    """float32 [positions, n_items + 1]: the teacher's raw scores, column 0 meaningless."""
    users: np.ndarray
    steps: np.ndarray
    states: np.ndarray
    """float16 [positions, hidden_width]: the teacher's states."""
    vocabulary: str = "v" * 64
    teacher: str = "a" * 64
    exact: bool = False

    def open(self, **changes: object) -> SoftTargets:
        """Open the store; one of scores on a grid as if nothing were lost in coding."""
        arguments: dict = {"vocabulary": self.vocabulary, "repeat_items": False} | changes
        store = SoftTargets.open(self.path, **arguments)
        return Exact(store, self) if self.exact else store

    def seen(self) -> list[set[int]]:
        starts = self.offsets[self.users]
        return [
            set(self.items[start : start + step + 1].tolist()) for start, step in zip(starts, self.steps, strict=True)
        ]


class Exact(SoftTargets):
    """Answers as its store would with endless bits: for tests of what reads a store, not of the store."""

    def __init__(self, store: SoftTargets, made: MadeStore) -> None:
        vars(self).update(vars(store))
        self._made = made

    def batch(self, ids: np.ndarray, temperature: float, *, hidden: bool = False, draws: bool = True) -> TargetBatch:
        found, header = super().batch(ids, temperature, hidden=hidden, draws=draws), self.header
        scores = self._made.scores[ids].astype(np.float64)
        scores[:, 0] = -np.inf
        if not header.repeat_items:
            for row, seen in zip(scores, [self._made.seen()[id_] for id_ in ids], strict=True):
                row[list(seen)] = -np.inf
        peak = scores.max(axis=1, keepdims=True)
        scores -= np.where(np.isneginf(peak), 0.0, peak)
        items = np.argsort(-scores, axis=1, kind="stable")[:, : header.k]
        best = np.take_along_axis(scores, items, axis=1)
        tail = scores.copy()
        np.put_along_axis(tail, items, -np.inf, axis=1)
        with np.errstate(divide="ignore"):
            lse = np.log(np.exp(tail / temperature).sum(axis=1))
        return TargetBatch(
            temperature=temperature,
            items=np.where(np.isneginf(best), 0, items),
            scores=best.astype(np.float32),
            peak=peak[:, 0].astype(np.float32),
            tail_lse=lse.astype(np.float32),
            tail_items=found.tail_items,
            tail_scores=np.take_along_axis(scores, found.tail_items, axis=1).astype(np.float32),
            tail_logq=found.tail_logq,
            hidden=found.hidden,
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors on a busy machine: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., MadeStore]:
    """Give a function that writes a store for users with so many training rows each."""

    def make(
        train_length: list[int],
        *,
        n_items: int = 30,
        k: int = 4,
        tail_samples: int = 3,
        temperatures: tuple[float, ...] = (1.0, 2.0),
        score_bits: int = 8,
        tail_bits: int = 7,
        length: int = 5,
        users_a_shard: int = 2,
        repeat_items: bool = False,
        hidden_width: int = 0,
        grid: float = 0.0,
        seed: int = 0,
        name: str = "store",
    ) -> MadeStore:
        rng = np.random.default_rng(seed)
        trained = np.array(train_length, np.int64)
        offsets = np.concatenate([[0], np.cumsum(trained + 2)])
        items = np.concatenate([rng.permutation(n_items)[: n + 2] + 1 for n in trained]).astype(np.int32)
        plan = windows(trained, length)
        rows, steps = spread(plan.first, plan.counts)
        users = plan.users[rows]
        scores = rng.normal(0.0, 2.0, (len(users), n_items + 1)).astype(np.float32)
        if grid:  # many equal scores, and a store that loses none of it
            scores = (np.round(scores / grid) * grid).astype(np.float32)
        states = rng.normal(0.0, 1.0, (len(users), hidden_width)).astype(np.float16)
        strata = strata_of(np.bincount(items, minlength=n_items + 1)[1:], tail_samples)
        header = new_header(
            teacher="a" * 64,
            vocabulary="v" * 64,
            inputs="c" * 64,
            n_items=n_items,
            n_users=len(trained),
            length=length,
            k=k,
            score_bits=score_bits,
            tail_samples=tail_samples,
            tail_bits=tail_bits,
            temperatures=temperatures,
            seed=seed,
            repeat_items=repeat_items,
            hidden_width=hidden_width,
        )
        folder = tmp_path / f"{name}-resume"
        folder.mkdir()
        writer = StoreWriter(folder, header, strata)
        parts = _parts(plan, users_a_shard)
        for number, part in enumerate(parts):
            place = np.isin(users, part.users)
            pairs = (
                seen_pairs(items, offsets, users[place], steps[place])
                if not repeat_items
                else (np.empty(0, np.int64), np.empty(0, np.int64))
            )
            kept = extract(
                torch.from_numpy(scores[place].copy()),
                (torch.from_numpy(pairs[0]), torch.from_numpy(pairs[1])),
                header.k,
                temperatures,
                torch.from_numpy(tail_draws(seed, users[place], steps[place], strata).astype(np.int64)),
            )
            tensors = encode({key: value.numpy() for key, value in kept.items()}, header.code)
            if hidden_width:
                tensors["hidden"] = states[place]
            writer.write(number, tensors, [0.5] * len(temperatures))
        writer.publish(tmp_path / name, len(parts), plan, row_digests(items, offsets, trained))
        return MadeStore(tmp_path / name, items, offsets, scores, users, steps, states, exact=grid > 0)

    return make


def _parts(plan: Windows, size: int) -> list[Windows]:
    return [plan.part(start, start + size) for start in range(0, len(plan), size)]
