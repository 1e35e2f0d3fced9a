from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.distill.positions import windows
from stillhouse.distill.store_format import StoreHeader
from stillhouse.distill.store_writer import StoreWriter

LENGTHS = [3, 0, 9, 1, 2, 4, 12]


def test_equal_inputs_give_equal_bytes(make_store):
    assert sha256_tree(make_store(LENGTHS, name="a").path) == sha256_tree(make_store(LENGTHS, name="b").path)


def test_the_size_of_a_shard_changes_no_row(make_store):
    few, many = make_store(LENGTHS, name="a", users_a_shard=9), make_store(LENGTHS, name="b", users_a_shard=1)
    stores = few.open(), many.open()
    assert [len(store.header.shards) for store in stores] == [1, 5]
    ids = few.open().position_ids(few.users, few.steps)
    one, other = (store.batch(ids, 2.0) for store in stores)
    for name in ("items", "scores", "peak", "tail_lse", "tail_items", "tail_scores", "tail_logq"):
        assert (getattr(one, name) == getattr(other, name)).all(), name


def _writer(tmp_path: Path, made) -> StoreWriter:
    store = made.open()
    return StoreWriter(tmp_path / "store-resume", _bare(store.header), store._index.strata)


def _bare(header: StoreHeader, **changes: object) -> StoreHeader:
    return header.model_copy(update={"positions": 0, "index_sha256": "0" * 64, "shards": ()} | changes)


def test_a_shard_is_finished_only_while_its_bytes_are_those_of_its_record(make_store, tmp_path):
    writer = _writer(tmp_path, make_store(LENGTHS))
    assert [writer.finished(number) for number in range(4)] == [True, True, True, False]
    (tmp_path / "store-resume" / "shard-00000.safetensors").write_bytes(b"cut")
    (tmp_path / "store-resume" / "shard-00001.safetensors.json").unlink()
    (tmp_path / "store-resume" / "shard-00002.safetensors.json").write_text("{")
    assert not any(writer.finished(number) for number in range(3))


def test_publishing_again_over_a_store_gives_the_same_store(make_store, tmp_path):
    made = make_store(LENGTHS)
    before = sha256_tree(made.path)
    _writer(tmp_path, made).publish(made.path, 3, windows(LENGTHS, 5), made.open()._index.digests)
    assert sha256_tree(made.path) == before


def test_without_links_and_across_file_systems_the_store_is_the_same(make_store, tmp_path, monkeypatch):
    made = make_store(LENGTHS)

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def far(self: Path, target: Path) -> Path:
        if self.name == "store":
            raise OSError(errno.EXDEV, "another file system")
        return renamed(self, target)

    renamed = Path.rename
    monkeypatch.setattr("os.link", no_link)
    monkeypatch.setattr(Path, "rename", far)
    _writer(tmp_path, made).publish(tmp_path / "copy", 3, windows(LENGTHS, 5), made.open()._index.digests)
    assert sha256_tree(tmp_path / "copy") == sha256_tree(made.path)
    assert not list(tmp_path.glob(".copy*"))


def test_another_failure_of_the_move_is_not_hidden(make_store, tmp_path, monkeypatch):
    made = make_store(LENGTHS)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="full"):
        _writer(tmp_path, made).publish(tmp_path / "copy", 3, windows(LENGTHS, 5), made.open()._index.digests)


def test_whole_shards_of_a_store_that_stands_are_taken_over(make_store, tmp_path):
    made = make_store(LENGTHS)
    before = sha256_tree(made.path)
    damaged = made.path / "shard-00001.safetensors"
    whole = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(whole[:-1] + b"?")
    store = made.open(verify=False)
    folder = tmp_path / "another"
    folder.mkdir()
    writer = StoreWriter(folder, _bare(store.header), store._index.strata)
    writer.adopt(made.path)
    assert [writer.finished(number) for number in range(4)] == [True, False, True, False]
    (folder / damaged.name).write_bytes(whole)
    (tmp_path / "store-resume" / f"{damaged.name}.json").rename(folder / f"{damaged.name}.json")
    writer.publish(made.path, 3, windows(LENGTHS, 5), store._index.digests)
    assert sha256_tree(made.path) == before


@pytest.mark.parametrize("change", [{"teacher": "b" * 64}, {"inputs": "d" * 64}, {"score_bits": 7}, {"seed": 9}])
def test_nothing_is_taken_over_from_another_store(make_store, tmp_path, change):
    made = make_store(LENGTHS)
    store = made.open()
    writer = StoreWriter(tmp_path, _bare(store.header, **change), store._index.strata)
    writer.adopt(made.path)
    writer.adopt(tmp_path / "nothing here")
    assert not any(writer.finished(number) for number in range(3))


def test_tensors_of_another_shape_are_no_shard(make_store, tmp_path):
    made = make_store(LENGTHS)
    with pytest.raises(ValueError, match="must hold the tensors that its header promises"):
        _writer(tmp_path, made).write(0, {"peak": np.zeros(3, np.float16)}, [0.5, 0.5])
