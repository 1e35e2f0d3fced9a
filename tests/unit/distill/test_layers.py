"""Earlier nights' targets: who keeps them, and that each position is answered by the store that should."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.files import sha256_file, write_json
from stillhouse.data.vocabulary import item_digest
from stillhouse.distill.coding_positions import open_bytes
from stillhouse.distill.layers import Standing, standing
from stillhouse.distill.positions import row_digests, windows
from stillhouse.distill.soft_targets import LayeredTargets, SoftTargets
from stillhouse.distill.store_format import StoreHeader, read_header
from stillhouse.distill.store_writer import StoreWriter
from stillhouse.errors import StoreError

LENGTHS = np.array([3, 0, 9, 1, 2, 4, 12])
#: Those who have positions: two training rows or more.
HOLDERS = [0, 2, 4, 5, 6]
IDS = ["", *(f"i{number}" for number in range(1, 31))]


@dataclass(frozen=True)
class Old:
    """Last night's store, and the numbers of its users' training rows."""

    path: Path
    digests: np.ndarray

    @property
    def header(self) -> StoreHeader:
        return read_header(self.path)

    def tonight(self, **changes: object) -> StoreHeader:
        """A header as tonight's stage makes it: another teacher, nothing written."""
        nothing = {"teacher": "b" * 64, "inputs": "d" * 64, "positions": 0, "index_sha256": "0" * 64, "shards": ()}
        return self.header.model_copy(update=nothing | {"layers": ()} | changes)

    def stands(self, digests: np.ndarray | None = None, nights: int = 1, **changes: object) -> Standing:
        return standing(
            self.path,
            self.tonight(**changes),
            [*IDS, "new"],
            self.digests if digests is None else digests,
            nights=nights,
        )


@pytest.fixture
def old(make_store) -> Old:
    made = make_store(LENGTHS.tolist(), name="old")
    header = json.loads((made.path / "store.json").read_text())
    write_json(made.path / "store.json", header | {"vocabulary": item_digest(IDS[1:])})
    return Old(made.path, row_digests(made.items, made.offsets, LENGTHS))


def _changed(old: Old, *users: int, more: int = 0) -> np.ndarray:
    """The numbers of tonight's rows: those of ``users`` are others, and ``more`` users are new."""
    digests = np.concatenate([old.digests, np.arange(more)])
    digests[list(users)] += 1
    return digests


def _next(old: Old, folder: Path, make_store, digests: np.ndarray, nights: int = 9) -> Old:
    """The night after ``old``: a store of the users who are scored, on what stands."""
    kept = old.stands(digests, nights)
    lengths = np.where(kept.users, 0, LENGTHS)
    made = make_store(lengths.tolist(), name=f"{folder.name}-own", seed=1)
    header = old.tonight(layers=tuple(layer.entry for layer in kept.layers))
    writer = StoreWriter(folder.with_name(f"{folder.name}-own-resume"), header, made.open()._index.strata)
    shards = len(made.open().header.shards)
    writer.publish(folder, shards, windows(lengths, 5), digests, kept.layers)
    return Old(folder, digests)


def _open(night: Old) -> SoftTargets:
    return SoftTargets.open(night.path, vocabulary=item_digest(IDS[1:]), repeat_items=False)


def test_users_with_the_same_training_rows_keep_their_targets(old):
    kept = old.stands(_changed(old, 2, 6, more=2))
    assert np.flatnonzero(kept.users).tolist() == [0, 4, 5]
    assert len(kept.users) == len(LENGTHS) + 2
    (layer,) = kept.layers
    assert (layer.entry.folder, layer.entry.teacher, layer.entry.age, layer.entry.users) == (
        "layers/00",
        "a" * 64,
        1,
        3,
    )


def test_a_layer_that_answers_for_nobody_goes(old):
    kept = old.stands(_changed(old, *HOLDERS))
    assert not kept.users.any()
    assert kept.layers == ()


@pytest.mark.parametrize(
    "change",
    [
        {"k": 3},
        {"score_bits": 7},
        {"temperatures": (1.0,)},
        {"length": 6},
        {"repeat_items": True},
        {"hidden_width": 4},
        {"seed": 9},
    ],
)
def test_targets_that_were_cut_otherwise_do_not_stand(old, change):
    assert old.stands(**change).layers == ()


def test_targets_of_items_that_tonights_do_not_begin_with_do_not_stand(old):
    found = standing(old.path, old.tonight(), ["", "new", *IDS[1:]], old.digests, nights=1)
    assert found.layers == ()


def test_a_damaged_shard_is_scored_again_with_all_its_store(old):
    shard = old.path / "shard-00001.safetensors"
    damaged = shard.read_bytes()[:-1] + b"?"
    shard.unlink()
    shard.write_bytes(damaged)
    assert old.stands().layers == ()


def test_a_store_that_cannot_be_read_says_so(old):
    tonight = old.tonight()
    (old.path / "store.json").write_text("{}")
    with pytest.raises(StoreError, match="must be of format"):
        standing(old.path, tonight, IDS, old.digests, nights=1)


def test_each_position_is_answered_by_the_latest_store_that_knows_its_user(old, tmp_path, make_store):
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    third = _next(second, tmp_path / "third", make_store, _changed(second, 4))
    store = _open(third)
    assert isinstance(store, LayeredTargets)
    assert store.header.positions == 1
    assert [layer.age for layer in store.header.layers] == [1, 2]
    assert store.holds(np.arange(-1, 9)).tolist() == [False, True, False, True, False, True, True, True, False, False]
    users = np.array([0, 2, 2, 4, 6, 1, 2, 99])
    steps = np.array([0, 7, 3, 0, 8, 0, 2, 0])
    ids = store.position_ids(users, steps)
    assert (ids < 0).tolist() == [False] * 5 + [True] * 3
    found = store.batch(ids[:5], 2.0)
    for row, source in enumerate([old, second, second, third, old]):
        alone = _open(Old(_plain(source, tmp_path / f"plain-{row}"), source.digests))
        one = alone.batch(alone.position_ids(users[row : row + 1], steps[row : row + 1]), 2.0)
        for name, array in vars(one).items():
            if isinstance(array, np.ndarray):
                assert np.array_equal(array, getattr(found, name)[row : row + 1]), name


def test_rows_of_several_layers_bring_their_states(make_store):
    made = [make_store(LENGTHS.tolist(), name=name, hidden_width=3, seed=seed) for seed, name in enumerate("ab")]
    store = LayeredTargets([one.open() for one in made])
    ids = np.array([20, 3, 16, 0, 31])
    expected = np.concatenate([one.states for one in made])[ids]
    assert np.array_equal(store.batch(ids, 1.0, hidden=True).hidden, expected)
    assert store.batch(ids, 1.0).hidden is None


def _plain(night: Old, folder: Path) -> Path:
    """A copy of a night's store without its layers."""
    folder.mkdir()
    for file in night.path.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    write_json(folder / "store.json", night.header.model_copy(update={"layers": ()}).model_dump(mode="json"))
    return folder


def test_targets_stand_for_so_many_nights_and_no_longer(old, tmp_path, make_store):
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    assert np.flatnonzero(second.stands(nights=2).users).tolist() == HOLDERS
    assert np.flatnonzero(second.stands(nights=1).users).tolist() == [2]


def test_what_a_later_store_knows_otherwise_no_older_one_answers(old, tmp_path, make_store):
    # User 2 was scored again on the second night; tonight his rows are those of the first again.
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    assert np.flatnonzero(second.stands(old.digests, nights=9).users).tolist() == [0, 4, 5, 6]


def test_nothing_new_makes_an_empty_store_on_last_nights(old, tmp_path, make_store):
    second = _next(old, tmp_path / "second", make_store, old.digests)
    assert second.header.positions == 0
    one, two = _open(old), _open(second)
    assert two.header.teachers == ("b" * 64, "a" * 64)
    assert np.array_equal(one.batch(np.arange(16), 1.0).items, two.batch(np.arange(16), 1.0).items)
    assert two.batch(np.empty(0, np.int64), 1.0).items.shape == (0, 4)
    with pytest.raises(IndexError, match="rows must be within"):
        two.batch(np.array([16]), 1.0)


def test_a_layer_is_a_whole_store_of_its_own(old, tmp_path, make_store):
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    third = _next(second, tmp_path / "third", make_store, _changed(second, 4))
    for number, source in enumerate([second, old]):
        layer = third.path / "layers" / f"{number:02d}"
        assert read_header(layer).layers == ()
        for file in ("index.safetensors", "shard-00000.safetensors"):
            assert sha256_file(layer / file) == sha256_file(source.path / file)
        assert (
            len(SoftTargets.open(layer, vocabulary=item_digest(IDS[1:]), repeat_items=False))
            == read_header(layer).positions
        )


@pytest.mark.parametrize("where", ["store.json", "index.safetensors", "shard-00000.safetensors"])
def test_a_damaged_layer_is_refused_by_name(old, tmp_path, make_store, where):
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    file = second.path / "layers" / "00" / where
    damaged = file.read_bytes()[:-1] + b" "
    file.unlink()
    file.write_bytes(damaged)
    with pytest.raises(StoreError, match=rf"{where} must have SHA-256"):
        _open(second)


def test_layers_share_one_budget_of_memory(old, tmp_path, make_store):
    second = _next(old, tmp_path / "second", make_store, _changed(old, 2))
    enough_for_one = 16 * open_bytes(old.header.code)
    for budget, cached in ((1 << 20, True), (enough_for_one, False)):
        store = SoftTargets.open(second.path, vocabulary=item_digest(IDS[1:]), repeat_items=False, cache_bytes=budget)
        assert [layer._fits for layer in store._layers] == [cached] * 2


def test_row_digests_tell_other_rows_apart_and_nothing_else():
    items = np.array([5, 7, 9, 1, 7, 5, 9, 5, 7])
    offsets = np.array([0, 4, 6, 9])
    before = row_digests(items, offsets, np.array([2, 2, 0]))
    assert len({*before.tolist()}) == 3
    assert before[2] == 0
    # What is held out behind the rows, and what other users do, changes nothing.
    other = items.copy()
    other[2:4] = 3
    assert row_digests(other, offsets, np.array([2, 1, 3]))[0] == before[0]
    assert row_digests(items, offsets, np.array([3, 2, 0]))[0] != before[0]
