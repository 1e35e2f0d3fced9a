from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.errors import StoreError

LENGTHS = [3, 0, 9, 1, 2, 4, 12]


def _truth(scores: np.ndarray, seen: set[int], k: int, temperature: float) -> tuple[list[int], float, float]:
    left = [item for item in range(1, len(scores)) if item not in seen]
    order = sorted(left, key=lambda item: (-scores[item], item))
    tail = np.exp(scores[order[k:]].astype(np.float64) / temperature)
    whole = np.exp(scores[order].astype(np.float64) / temperature)
    return order[:k], float(np.log(whole.sum())), float(tail.sum() / whole.sum())


def test_a_store_gives_back_the_teacher_at_every_position(make_store):
    made = make_store(LENGTHS)
    store = made.open(teacher=made.teacher)
    assert len(store) == len(made.users) == 2 + 5 + 1 + 3 + 5
    ids = store.position_ids(made.users, made.steps)
    assert ids.tolist() == list(range(len(store)))
    for temperature in (1.0, 2.0):
        batch = store.batch(ids, temperature)
        for row, seen in enumerate(made.seen()):
            items, lse, tail = _truth(made.scores[row], seen, 4, temperature)
            assert sorted(batch.items[row].tolist()) == sorted(items)
            assert (np.diff(batch.scores[row]) <= 0).all()
            # 8 and 7 bits over a few units, and float16's eleven.
            assert batch.peak[row] + batch.scores[row] == pytest.approx(made.scores[row, batch.items[row]], abs=0.03)
            assert batch.lse[row] + batch.peak[row] / temperature == pytest.approx(lse, abs=0.03)
            assert np.exp(batch.tail_lse[row] - batch.lse[row]) == pytest.approx(tail, rel=0.03)
            drawn = batch.tail_items[row]
            assert batch.peak[row] + batch.tail_scores[row] == pytest.approx(made.scores[row, drawn], abs=0.07)
            assert not set(drawn[np.isfinite(batch.tail_logq[row])].tolist()) & (seen | set(items) | {0})


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_mean_over_draws_estimates_a_sum_over_the_tail_without_bias(make_store, temperature):
    # Every position of one user has the same scores, so that all of them estimate the same sum.
    made = make_store([1200], n_items=1300, length=1200, k=6, tail_samples=5, users_a_shard=1, repeat_items=True)
    batch = made.open(repeat_items=True).batch(np.arange(1199), temperature)
    sums, estimates = [], []
    for row in range(1199):
        tail = np.setdiff1d(np.arange(1, 1301), batch.items[row])
        relative = made.scores[row].astype(np.float64) - batch.peak[row]
        sums.append(np.exp(relative[tail] / temperature - batch.tail_lse[row]).sum())
        weights = np.exp(-batch.tail_logq[row].astype(np.float64))
        estimates.append((np.exp(batch.tail_scores[row] / temperature - batch.tail_lse[row]) * weights).mean())
    error = np.array(estimates) - np.array(sums)
    assert np.array(sums) == pytest.approx(1.0, abs=0.02)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))


def test_decoded_once_or_batch_by_batch_the_store_says_the_same(make_store):
    made = make_store(LENGTHS, k=8, n_items=40)
    whole, piece = made.open(), made.open(cache_bytes=0)
    asked = np.array([15, 0, 7, 7, 3, 12])
    for temperature in (1.0, 2.0):
        one, other = whole.batch(asked, temperature), piece.batch(asked, temperature)
        for name, array in vars(one).items():
            assert np.array_equal(array, getattr(other, name)), name
    assert whole._cached is not None
    assert piece._cached is None


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_without_its_draws_a_batch_is_what_it_is_with_them(make_store, cache_bytes):
    store = make_store(LENGTHS, k=8, n_items=40).open(cache_bytes=cache_bytes)
    asked = np.array([15, 0, 7, 7, 3, 12])
    whole, part = store.batch(asked, 2.0), store.batch(asked, 2.0, draws=False)
    for name, array in vars(whole).items():
        drawn = name.startswith("tail_") and name != "tail_lse"
        assert np.array_equal(array[:, :0] if drawn else array, getattr(part, name)), name


def test_rows_come_in_the_order_asked_for_whatever_shard_they_stand_in(make_store):
    made = make_store(LENGTHS)
    store = made.open()
    whole = store.batch(np.arange(len(store)), 1.0)
    asked = np.array([15, 0, 7, 7, 3, 12])
    part = store.batch(asked, 1.0)
    for name in ("items", "scores", "peak", "tail_lse", "tail_items", "tail_scores", "tail_logq"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[asked]), name
    assert store.batch(np.empty(0, np.int64), 1.0).items.shape == (0, 4)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_states_are_read_where_they_are_asked_for(make_store, cache_bytes):
    made = make_store(LENGTHS, hidden_width=5)
    store = made.open(cache_bytes=cache_bytes)
    assert store.header.hidden_width == 5
    for asked in ([15, 0, 7, 7, 3, 12], [1, 0], []):
        ids = np.array(asked, np.int64)
        found = store.batch(ids, 1.0, hidden=True).hidden
        assert found.dtype == np.float32
        assert np.array_equal(found, made.states[ids].astype(np.float32))
    assert store.batch(np.arange(3), 1.0).hidden is None


def test_where_no_method_asks_for_states_none_are_read(make_store):
    made = make_store(LENGTHS, hidden_width=5)
    for cache_bytes in (0, 1 << 20):
        store = made.open(cache_bytes=cache_bytes)
        for _, tensors in store._shards:
            del tensors["hidden"]
        assert store.batch(np.arange(len(store)), 1.0).hidden is None
        with pytest.raises(KeyError):
            store.batch(np.arange(len(store)), 1.0, hidden=True)


def test_states_change_nothing_else_of_a_store(make_store):
    plain, more = make_store(LENGTHS, name="plain"), make_store(LENGTHS, name="more", hidden_width=3)
    for number in range(3):
        shards = [load_file(made.path / f"shard-{number:05d}.safetensors") for made in (plain, more)]
        assert set(shards[1]) - set(shards[0]) == {"hidden"}
        for name, tensor in shards[0].items():
            assert np.array_equal(tensor, shards[1][name]), name
    assert plain.open().batch(np.arange(16), 1.0, hidden=True).hidden is None


def test_positions_that_the_store_does_not_hold_are_minus_one(make_store):
    made = make_store(LENGTHS)
    users = np.array([2, 2, 2, 1, 3, -1, 99, 0, 6, 6])
    steps = np.array([2, 3, 8, 0, 0, 0, 0, -1, 10, 11])
    # user 2 has 9 training rows and a window of 5: steps 3..7 are held; user 6 has 12: steps 6..10.
    assert made.open().position_ids(users, steps).tolist() == [-1, 2, -1, -1, -1, -1, -1, -1, 15, -1]


def test_a_row_beyond_the_store_is_an_index_error(make_store):
    store = make_store(LENGTHS).open()
    for bad in (-1, len(store)):
        with pytest.raises(IndexError, match="rows must be within"):
            store.batch(np.array([0, bad]), 1.0)


def test_with_repeats_items_already_taken_are_candidates(make_store):
    made = make_store([25, 25], n_items=30, k=30, repeat_items=True)
    batch = made.open(repeat_items=True).batch(np.arange(10), 1.0)
    assert (np.sort(batch.items, axis=1) == np.arange(1, 31)).all()
    assert np.isneginf(batch.tail_lse).all()


def test_a_catalogue_smaller_than_k_is_padded(make_store):
    made = make_store([4], n_items=6, k=5)
    batch = made.open().batch(np.arange(3), 2.0)
    assert (batch.items > 0).sum(axis=1).tolist() == [5, 4, 3]
    assert np.array_equal(batch.items == 0, np.isneginf(batch.scores))


def test_a_position_of_fifty_items_and_forty_draws_takes_less_than_a_third_of_what_it_did(make_store):
    made = make_store([400], n_items=3416, k=50, tail_samples=40, score_bits=4, tail_bits=5, length=400)
    shard = load_file(made.path / "shard-00000.safetensors")
    sizes = {name: tensor.nbytes / len(tensor) for name, tensor in shard.items()}
    assert sizes == {
        "items": 51.0,
        "scores": 25.0,
        "scale": 2.0,
        "peak": 2.0,
        "tail_lse": 4.0,
        "tail_scores": 25.0,
        "tail_scale": 2.0,
    }


def _expect(path: Path, match: str, **changes: object) -> None:
    arguments: dict = {"vocabulary": "v" * 64, "repeat_items": False} | changes
    with pytest.raises(StoreError, match=match) as caught:
        SoftTargets.open(path, **arguments)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_another_teacher_vocabulary_or_repeat_setting_is_refused(make_store):
    path = make_store(LENGTHS).path
    _expect(path, "must be of teacher bbbbbbbbbbbb, found aaaaaaaaaaaa", teacher="b" * 64)
    _expect(path, "must be of vocabulary wwww", vocabulary="w" * 64)
    _expect(path, "must be of repeat_items true, found false", repeat_items=True)


def test_a_temperature_that_the_store_lacks_is_refused(make_store):
    store = make_store(LENGTHS).open()
    with pytest.raises(StoreError, match=r"one of the soft-target store's \(1, 2\), got 1.5 \(params.yaml"):
        store.batch(np.array([0]), 1.5)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_truncated_shard_is_named(make_store, cut):
    path = make_store(LENGTHS).path
    shard = path / "shard-00001.safetensors"
    whole = shard.read_bytes()
    shard.unlink()  # a hard link of the resume folder's file
    shard.write_bytes(whole[:cut])
    _expect(path, "shard-00001.safetensors must have .* bytes", verify=False)
    _expect(path, "shard-00001.safetensors must have .* bytes")


def test_a_missing_shard_is_named(make_store):
    path = make_store(LENGTHS).path
    (path / "shard-00002.safetensors").unlink()
    _expect(path, "shard-00002.safetensors must have .* found no file")


@pytest.mark.parametrize("where", [3, 40, 500, -1])
def test_a_flipped_byte_is_named(make_store, where):
    path = make_store(LENGTHS).path
    shard = path / "shard-00000.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[where] ^= 0x10
    shard.unlink()
    shard.write_bytes(damaged)
    _expect(path, "shard-00000.safetensors must have SHA-256")


def test_a_damaged_index_is_named(make_store):
    path = make_store(LENGTHS).path
    index = path / "index.safetensors"
    index.write_bytes(index.read_bytes()[:-1] + b"\x07")
    _expect(path, "index.safetensors must have SHA-256")
    _expect(path, "index.safetensors must cut all items into 3 strata", verify=False)
    index.write_bytes(b"")
    _expect(path, "index.safetensors must be a whole safetensors file", verify=False)


def _edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        header = json.loads((path / "store.json").read_text())
        change(header)
        (path / "store.json").write_text(json.dumps(header))

    return edit


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_edit(lambda header: header.update(version=1)), "version 2, got 'stillhouse soft targets' version 1"),
        (_edit(lambda header: header.update(format="x")), "must be of format"),
        (_edit(lambda header: header.pop("teacher")), "must be whole: teacher"),
        (_edit(lambda header: header.update(k=5)), "must hold the tensors that its header promises"),
        (_edit(lambda header: header.update(hidden_width=4)), "must hold the tensors that its header promises"),
        (_edit(lambda header: header.update(positions=3)), "must name the 3 positions"),
        (_edit(lambda header: header["shards"].pop()), "must name the 16 positions"),
        (_edit(lambda header: header["shards"][0].update(file="../x")), "must be whole: shards.0.file"),
        (lambda path: (path / "store.json").write_text("{"), "must be JSON"),
        (lambda path: (path / "store.json").write_text("[]"), "must be of format"),
        (lambda path: (path / "store.json").unlink(), "must hold store.json"),
        (shutil.rmtree, "must hold store.json"),
    ],
)
def test_a_header_that_is_not_whole_is_refused(make_store, damage, match):
    path = make_store(LENGTHS).path
    damage(path)
    _expect(path, match)


def test_a_damaged_row_names_its_shard_even_unverified(make_store):
    path = make_store(LENGTHS).path
    shard = path / "shard-00001.safetensors"
    whole = bytearray(shard.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    offsets = json.loads(whole[8:start])["items"]["data_offsets"]
    whole[start + offsets[1] - 1] ^= 1
    shard.unlink()
    shard.write_bytes(whole)
    _expect(path, "shard-00001.safetensors must have SHA-256")
    for cache in (0, 1 << 20):
        store = SoftTargets.open(path, vocabulary="v" * 64, repeat_items=False, verify=False, cache_bytes=cache)
        with pytest.raises(StoreError, match=r"shard-00001\.safetensors must hold rows as they were written") as caught:
            store.batch(np.arange(len(store)), 1.0)
        assert "\n" not in str(caught.value)
