"""Whatever goes into a soft-target store comes out of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.distill.positions import spread, windows
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.store_writer import StoreWriter, new_header


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=8),
    length=st.integers(1, 6),
    k=st.integers(1, 5),
    samples=st.integers(0, 3),
    n_items=st.sampled_from([5, 255, 256, 70_000]),
    users_a_shard=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_what_goes_into_a_store_comes_out_at_the_same_position(
    lengths, length, k, samples, n_items, users_a_shard, seed
):
    rng = np.random.default_rng(seed)
    plan = windows(np.array(lengths, np.int32), length)
    header = new_header(
        teacher="t",
        vocabulary="v",
        n_items=n_items,
        n_users=len(lengths),
        length=length,
        k=k,
        tail_samples=samples,
        temperatures=(0.5, 3.0),
        repeat_items=False,
    )
    n = int(plan.counts.sum())
    truth = {
        "items": rng.integers(0, n_items + 1, (n, k)),
        "scores": -rng.random((n, k)).astype(np.float16),
        "peak": rng.normal(size=n).astype(np.float32),
        "tail_lse": rng.normal(size=(n, 2)).astype(np.float32),
        "tail_items": rng.integers(0, n_items + 1, (n, samples)),
        "tail_scores": -rng.random((n, samples)).astype(np.float16),
        "tail_logq": rng.normal(size=(n, samples)).astype(np.float32),
    }
    rows, steps = spread(plan.first, plan.counts)
    users = plan.users[rows]
    with tempfile.TemporaryDirectory() as folder:
        writer, shards = StoreWriter(Path(folder), header), range(0, len(plan), users_a_shard)
        for number, start in enumerate(shards):
            inside = np.isin(users, plan.users[start : start + users_a_shard])
            writer.write(number, {name: tensor[inside] for name, tensor in truth.items()}, {})
        writer.publish(Path(folder) / "out", len(shards), plan)
        store = SoftTargets.open(Path(folder) / "out", vocabulary="v", repeat_items=False, teacher="t")
        assert len(store) == n
        order = rng.permutation(n)
        ids = store.position_ids(users[order], steps[order])
        assert ids.tolist() == order.tolist()
        absent = store.position_ids(np.arange(len(lengths)), np.array([max(0, x - 1) for x in lengths], np.int64))
        assert (absent == -1).all()
        for column, temperature in enumerate((0.5, 3.0)):
            batch = store.batch(ids, temperature)
            assert np.array_equal(batch.tail_lse, truth["tail_lse"][order, column])
            for name in ("items", "scores", "peak", "tail_items", "tail_scores", "tail_logq"):
                assert np.array_equal(getattr(batch, name), truth[name][order]), name
