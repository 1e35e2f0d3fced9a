"""Whatever goes into a soft-target store comes out of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.distill.coding_positions import encode
from stillhouse.distill.draws import strata_of, tail_draws
from stillhouse.distill.positions import spread, windows
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.store_writer import StoreWriter, new_header


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=8),
    length=st.integers(1, 6),
    k=st.integers(1, 5),
    samples=st.integers(0, 3),
    bits=st.tuples(st.integers(1, 8), st.integers(2, 7)),
    n_items=st.sampled_from([5, 255, 256, 70_000]),
    users_a_shard=st.integers(1, 4),
    cache_bytes=st.sampled_from([0, 1 << 20]),
    seed=st.integers(0, 2**32),
)
def test_what_goes_into_a_store_comes_out_at_the_same_position(
    lengths, length, k, samples, bits, n_items, users_a_shard, cache_bytes, seed
):
    rng = np.random.default_rng(seed)
    plan = windows(np.array(lengths, np.int32), length)
    strata = strata_of(rng.integers(0, 50, n_items), samples)
    header = new_header(
        teacher="t",
        vocabulary="v",
        inputs="0" * 64,
        n_items=n_items,
        n_users=len(lengths),
        length=length,
        k=k,
        score_bits=bits[0],
        tail_samples=samples,
        tail_bits=bits[1],
        temperatures=(0.5, 3.0),
        seed=seed,
        repeat_items=False,
    )
    n = int(plan.counts.sum())
    # Whole steps, of which the worst takes the last: nothing is lost in coding.
    steps = rng.integers(0, header.code.levels + 1, (n, k))
    steps[:, 0], steps[:, -1] = 0, header.code.levels * (k > 1)
    tail_steps = rng.integers(0, header.code.outside, (n, samples))
    tail_steps[:, :1] = header.code.outside - 1
    worst = -0.25 * steps.max(axis=1, keepdims=True)
    truth = {
        "items": np.sort(rng.integers(1, n_items + 1, (n, k)), axis=1),
        "scores": (-0.25 * steps).astype(np.float32),
        "peak": rng.normal(size=n).astype(np.float16),
        "tail_lse": rng.normal(size=(n, 2)).astype(np.float16),
        "tail_scores": (worst - 0.5 * tail_steps).astype(np.float32),
    }
    rows, positions = spread(plan.first, plan.counts)
    users = plan.users[rows]
    with tempfile.TemporaryDirectory() as folder:
        writer, shards = StoreWriter(Path(folder), header, strata), range(0, len(plan), users_a_shard)
        for number, start in enumerate(shards):
            inside = np.isin(users, plan.users[start : start + users_a_shard])
            coded = encode({name: tensor[inside] for name, tensor in truth.items()}, header.code)
            writer.write(number, coded, [0.5, 0.25])
        writer.publish(Path(folder) / "out", len(shards), plan, np.zeros(len(lengths), np.int64))
        store = SoftTargets.open(
            Path(folder) / "out", vocabulary="v", repeat_items=False, teacher="t", cache_bytes=cache_bytes
        )
        assert len(store) == n
        order = rng.permutation(n)
        ids = store.position_ids(users[order], positions[order])
        assert ids.tolist() == order.tolist()
        absent = store.position_ids(np.arange(len(lengths)), np.array([max(0, x - 1) for x in lengths], np.int64))
        assert (absent == -1).all()
        for column, temperature in enumerate((0.5, 3.0)):
            batch = store.batch(ids, temperature)
            assert np.array_equal(batch.peak, truth["peak"][order])
            assert np.array_equal(batch.tail_lse, truth["tail_lse"][order, column])
            by_score = np.lexsort((truth["items"][order], -truth["scores"][order]), axis=1)
            for name in ("items", "scores"):
                assert np.array_equal(getattr(batch, name), np.take_along_axis(truth[name][order], by_score, axis=1))
            assert np.array_equal(batch.tail_items, tail_draws(seed, users[order], positions[order], strata))
            assert np.array_equal(batch.tail_scores, truth["tail_scores"][order])
            assert np.array_equal(batch.tail_logq, np.broadcast_to(strata.logq, (n, len(strata))))
