"""Small teachers and stores, made without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.distill.draws import uniforms
from stillhouse.distill.extract import extract
from stillhouse.distill.positions import Windows, seen_pairs, spread, windows
from stillhouse.distill.soft_targets import SoftTargets
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
    vocabulary: str = "v" * 64
    teacher: str = "a" * 64

    def open(self, **changes: object) -> SoftTargets:
        arguments: dict = {"vocabulary": self.vocabulary, "repeat_items": False} | changes
        return SoftTargets.open(self.path, **arguments)

    def seen(self) -> list[set[int]]:
        starts = self.offsets[self.users]
        return [
            set(self.items[start : start + step + 1].tolist()) for start, step in zip(starts, self.steps, strict=True)
        ]


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
        length: int = 5,
        users_a_shard: int = 2,
        repeat_items: bool = False,
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
        if grid:  # scores that float16 holds exactly, differences included
            scores = (np.round(scores / grid) * grid).astype(np.float32)
        header = new_header(
            teacher="a" * 64,
            vocabulary="v" * 64,
            n_items=n_items,
            n_users=len(trained),
            length=length,
            k=k,
            tail_samples=tail_samples,
            temperatures=temperatures,
            repeat_items=repeat_items,
        )
        folder = tmp_path / f"{name}-resume"
        folder.mkdir()
        writer = StoreWriter(folder, header)
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
                torch.from_numpy(uniforms(seed, users[place], steps[place], tail_samples)),
            )
            writer.write(number, {key: value.numpy() for key, value in kept.items()}, {})
        writer.publish(tmp_path / name, len(parts), plan)
        return MadeStore(tmp_path / name, items, offsets, scores, users, steps)

    return make


def _parts(plan: Windows, size: int) -> list[Windows]:
    return [plan.part(start, start + size) for start in range(0, len(plan), size)]
